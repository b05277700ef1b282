"""Weights from the hub and from addresses: whether they can be had, and what to do if not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub
import torch

from dfl.errors import BackboneError, one_line

_PATIENCE_S: Final = 4.0
_CLIENTS: Final = {"httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"}
_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@contextmanager
def fetching(model: str, *, repo: str | None = None, url: str | None = None) -> Iterator[None]:
    """Fetch what belongs to a model, and say in one line why it cannot be had.

    Whether anything answers at all is asked first: the clients of the hub try for a minute.

    Args:
        model: Whose weights they are, for errors.
        repo: The repository on the hub.
        url: The address, where they are not on the hub.

    Raises:
        BackboneError: If the network, the hub or its cache does not give them.
    """
    _check_reachable(model, repo, url)
    try:
        yield
    except Exception as err:
        if not _is_of_network(err):
            raise
        raise unreachable(model, err, repo=repo) from err


def unreachable(model: str, err: Exception, *, repo: str | None = None) -> BackboneError:
    """Say that weights could not be had, and what to do.

    Args:
        model: Whose weights.
        err: What went wrong.
        repo: Where on the hub they are.

    Returns:
        The error to raise.
    """
    words = one_line(err).lower()
    page = f"{huggingface_hub.constants.ENDPOINT}/{repo}" if repo else "the hub"
    if "gated" in words or "401 client" in words or "403 client" in words:
        return BackboneError(
            f"{model}: the hub does not give the weights to everyone: accept their licence at "
            f"{page} and run `hf auth login`, or give a local file (weights: path)"
        )
    if type(err).__name__ == "RepositoryNotFoundError" or "404 client" in words:
        return BackboneError(
            f"{model}: {page} does not exist, has no such file, or is private: mend the name, or "
            "run `hf auth login`"
        )
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return BackboneError(
            f"the weights of {model} are not in the cache ({huggingface_hub.constants.HF_HUB_CACHE}"
            "), and HF_HUB_OFFLINE is set, so nothing is downloaded: unset it once where there is "
            "a network, or give a local file (weights: path)"
        )
    return BackboneError(
        f"the weights of {model} could not be downloaded ({type(err).__name__}: "
        f"{one_line(err, 160)}); try again, or give a local file (weights: path)"
    )


def _is_of_network(err: Exception) -> bool:
    return isinstance(err, OSError) or type(err).__module__.partition(".")[0] in _CLIENTS


def _check_reachable(model: str, repo: str | None, url: str | None) -> None:
    """Refuse at once where nothing answers and the cache holds nothing of it."""
    if repo is not None:
        if huggingface_hub.constants.HF_HUB_OFFLINE or _is_cached(repo):
            return
        url = huggingface_hub.constants.ENDPOINT
    elif url is None or _is_downloaded(url):
        return
    address = urlsplit(url)
    host = str(address.hostname)
    proxy = None if proxy_bypass(host) else getproxies().get(address.scheme)
    asked = (
        urlsplit(proxy if proxy is None or "://" in proxy else f"http://{proxy}")
        if proxy
        else address
    )
    port = asked.port or _PORTS.get(asked.scheme, 443)
    if (reason := _silence(str(asked.hostname), port)) is not None:
        where = (
            f"the proxy {asked.hostname}:{port}, which the environment names for {host},"
            if proxy
            else host
        )
        remedy = "mend or unset HTTPS_PROXY" if proxy else "connect to a network"
        raise BackboneError(
            f"the weights of {model} are not in the cache, and cannot be downloaded: {where} does "
            f"not answer ({reason}); {remedy}, or give a local file (weights: path)"
        )


def _is_cached(repo: str) -> bool:
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    return any((folder / "snapshots").glob("*/*"))


def _is_downloaded(url: str) -> bool:
    name = Path(urlsplit(url).path).name
    folders = (Path(torch.hub.get_dir()) / "checkpoints", Path("~/.cache/clip").expanduser())
    return any((folder / name).exists() for folder in folders)  # torch's place, and open_clip's


def _silence(host: str, port: int) -> str | None:
    """Say why a port does not answer, None if it does."""
    found: list[str | None] = []

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE_S).close()
        except OSError as err:
            found.append(err.strerror or one_line(err))
        else:
            found.append(None)

    # looking up a name has no timeout of its own
    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return found[0] if found else f"nothing within {_PATIENCE_S:.0f} s"
