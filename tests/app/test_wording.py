import pytest

from dfl.app.wording import in_plain_words, of_libraries
from dfl.cli import main


def _said(args: list[str], capsys) -> str:
    with pytest.raises(SystemExit):
        main(args)
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--threshold=high", "threshold: expected float, got high; `dfl evaluate --help` lists"),
        ("--nothing=1", "nothing"),
    ],
)
def test_error__of_an_option(option: str, said: str, capsys) -> None:
    shown = _said(["evaluate", "--scores=a.csv", option], capsys)
    assert said in shown
    assert "<class" not in shown


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--heads.a.shrinkage=banana", "shrinkage: expected float or 'auto', got banana"),
        ("--heads.a.bogus=1", "--heads.a.bogus: no such option of lda"),
    ],
)
def test_error__of_a_nested_setting(setting: str, said: str, capsys) -> None:
    head = "--heads.a=dfl.heads.estimators.lda"
    shown = _said(["heads", "--features=f", "--out=o", head, setting], capsys)
    assert said in shown
    assert "Union" not in shown
    assert "NestedArg" not in shown


def test_in_plain_words__an_option_before_its_class_is_explained(capsys) -> None:
    args = ["extract", "--data.source.root=r", "--data.source=Pairs", "--out=o"]
    args += ["--backbones={}", "--data.source.pairs={}", "--data.crop=Resize", "--data.crop.size=8"]
    assert "name the class before its options" in _said(args, capsys)


def test_in_plain_words__leaves_the_rest_alone() -> None:
    assert in_plain_words("unrecognized arguments:\n --a 1") == "unrecognized arguments: --a 1"


def _raised(module: str, name: str, base: type[Exception], *args: object) -> Exception:
    """Raise as a library does whose classes are known by the module that they are from."""
    return type(name, (base,), {"__module__": module})(*args)


def _of_torch(name: str, *args: object) -> Exception:
    return _raised("torch.distributed", name, RuntimeError, *args)


@pytest.mark.parametrize(
    ("err", "said"),
    [
        (
            _raised("wandb.errors.errors", "UsageError", Exception, "No API key configured."),
            "W&B: No API key configured; log in (wandb login, or WANDB_API_KEY), or WANDB_MODE=off",
        ),
        (
            _raised("wandb.errors", "CommError", Exception, "Error 403: permission\n denied"),
            "W&B: Error 403: permission denied; check --trainer.logger.project and --trainer.",
        ),
        (
            _raised("wandb.errors", "CommError", Exception, "Run initialization has timed out"),
            "W&B: Run initialization has timed out; check the connection, or WANDB_MODE=offline",
        ),
        (
            _raised("torch", "OutOfMemoryError", RuntimeError, "CUDA out of memory. Tried 2 GiB"),
            "out of memory (CUDA out of memory. Tried 2 GiB); give a smaller batch size, a smaller "
            "backbone or crop; nvidia-smi",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of memory (CU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory"),
        (
            _raised(
                "torch.distributed", "DistBackendError", RuntimeError, "NCCL error in: a.cpp:7"
            ),
            "the processes cannot talk to each other (NCCL error in: a.cpp:7); NCCL_DEBUG=INFO",
        ),
        (
            RuntimeError("ncclInvalidUsage. Last error:\nDuplicate GPU detected : rank 1 and 0"),
            "two processes have one GPU (ncclInvalidUsage. Last error: Duplicate GPU detected : ",
        ),
        (
            _of_torch("DistBackendError", "x: ncclRemoteError: A"),
            "another process stopped; its own message says why",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:2"),
            "another process stopped; its own message says why",
        ),
        (
            _raised(
                "torch.distributed", "DistNetworkError", RuntimeError, "The client has timed out"
            ),
            "other processes did not come, or stand still (The client has timed out); start all",
        ),
        (
            _raised(
                "torch.distributed", "DistNetworkError", RuntimeError, "Address already in use"
            ),
            "another run has this port (Address already in use); give this one another MASTER_PORT",
        ),
        (MemoryError(), "out of memory (MemoryError); give a smaller batch size"),
        (OSError(28, "No space left on device"), "No space left on device; make room, or write"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device; make room"),
        (PermissionError(13, "Permission denied", "x.csv"), "x.csv: Permission denied"),
        (OSError("truncated file"), "truncated file"),
        (_raised("requests.exceptions", "ProxyError", OSError, "no proxy"), "the network: no prox"),
        (_raised("httpx", "ConnectError", Exception, "[Errno -2]"), "the network: [Errno -2]; ch"),
        (
            _raised("pyarrow.lib", "ArrowInvalid", ValueError, "Bad magic"),
            "a table or its file can",
        ),
    ],
)
def test_of_libraries__one_line_with_the_way_out(err: Exception, said: str) -> None:
    found = of_libraries(err)
    assert found is not None
    assert found.startswith(said)
    assert "\n" not in found


@pytest.mark.parametrize(
    "err", [ValueError("x"), RuntimeError("shape"), KeyError("a"), TypeError()]
)
def test_of_libraries__a_mistake_of_the_program_keeps_its_trace(err: Exception) -> None:
    assert of_libraries(err) is None
