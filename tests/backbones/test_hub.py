import socket
import threading
import time
from contextlib import closing

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from dfl.backbones import OpenClipBackbone, TimmBackbone
from dfl.backbones.hub import fetching, unreachable
from dfl.errors import BackboneError
from tests.backbones.hub_cache import put


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Allow downloads, from an empty cache, with nothing around that answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def closed_port():
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return port


@pytest.mark.usefixtures("online")
def test_fetching__names_a_dead_proxy_at_once(monkeypatch, closed_port):
    monkeypatch.setenv("HTTPS_PROXY", f"http://name:secret@127.0.0.1:{closed_port}")
    start = time.monotonic()

    with pytest.raises(BackboneError, match=r"mend or unset HTTPS_PROXY, or give a loc") as info:
        TimmBackbone("resnet10t.c3_in1k")

    assert f"the proxy 127.0.0.1:{closed_port}, which the environment names for" in str(info.value)
    assert "Connection refused" in str(info.value)
    assert "secret" not in str(info.value)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("online")
def test_fetching__says_that_there_is_no_network(monkeypatch, closed_port):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed_port}")

    with pytest.raises(BackboneError, match=r"127\.0\.0\.1 does not answer .*connect to a network"):
        OpenClipBackbone("RN50-quickgelu", "openai")


@pytest.mark.usefixtures("online")
def test_fetching__bounds_the_search_for_a_name(monkeypatch):
    answer = threading.Event()

    def connect(*_, **__):
        answer.wait(10)
        raise OSError("late")

    monkeypatch.setattr("dfl.backbones.hub._PATIENCE_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", connect)

    with pytest.raises(BackboneError, match="does not answer"), fetching("a", repo="b/c"):
        pass
    answer.set()


@pytest.mark.usefixtures("online")
def test_fetching__does_not_ask_for_what_is_cached(monkeypatch, tmp_path):
    monkeypatch.setattr("dfl.backbones.hub._silence", lambda *_: pytest.fail("asked"))
    put(tmp_path, monkeypatch, "b/c", config={})
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net.pth").touch()

    with fetching("a", repo="b/c"), fetching("a", url="https://example.org/net.pth"):
        pass


def test_fetching__leaves_other_errors_alone():
    with pytest.raises(ValueError, match="mine"), fetching("a", repo="b/c"):
        raise ValueError("mine")


@pytest.mark.parametrize("model", ["hf-hub:timm/nothing", "resnet10t.c3_in1k"])
def test_offline__is_not_advised_where_it_is_set(monkeypatch, tmp_path, model):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(BackboneError, match=r"are not in the cache \(.*unset it once") as info:
        TimmBackbone(model)
    assert "set HF_HUB_OFFLINE=1" not in str(info.value)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "403 Client Error: Cannot access gated repo",
            r"accept their licence at .*/b/c and run `hf",
        ),
        ("401 Client Error: Unauthorized", r"accept their licence at .*/b/c and run `hf auth"),
        ("404 Client Error: Not Found", r"/b/c does not exist, has no such file, or is private"),
    ],
)
def test_unreachable__has_the_remedy_of_its_cause(words, remedy):
    with pytest.raises(BackboneError, match=remedy):
        raise unreachable("a", OSError(words), repo="b/c")


def test_unreachable__gives_the_reason_where_none_is_known(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    with pytest.raises(
        BackboneError, match=r"downloaded \(LocalEntryNotFoundError: no\nline\)|no l"
    ):
        raise unreachable("a", LocalEntryNotFoundError("no\nline"), repo="b/c")
