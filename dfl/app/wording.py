"""What other libraries complain of, in plain words: the parser, and what a run meets."""

import re
from typing import Final

from dfl.errors import one_line
from dfl.files import is_full_disk

_REWRITES: Final = (
    (r"""(?:Parser key "([^"]+)"|Problem with given class_path '([^']*)'): """, r"\1\2: "),
    # what all alternatives of a type have to say, of which the first is the one that was meant
    (
        r"(?:- )?Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - "
        r"|(?: - Expected a (?:<class '\S+'>|typing\.Literal\[.*?\]))+ Given value type: .*",
        "",
    ),
    (
        r"(Expected an instantiatable class, but \S+ is abstract)",
        r"\1; name the class before its options, as in --data.source Pairs --data.source.root data",
    ),
)

_MOST: Final = 300
_NO_MEMORY: Final = (
    *("out of memory", "can't allocate memory", "cannot allocate memory"),
    "status_alloc_failed",  # of cuBLAS and cuDNN
)
_OF_GPUS: Final = ("cuda", "cublas", "cudnn", "hip", "mps")
_OF_PROCESSES: Final = ("nccl", "gloo", "connection closed by peer")
_GONE: Final = ("closed by peer", "reset by peer", "broken pipe", "ncclremoteerror", "pair closure")
_NETWORK: Final = frozenset(
    {"requests", "urllib3", "httpx", "httpcore", "aiohttp", "huggingface_hub", "urllib"}
)


def in_plain_words(message: str) -> str:
    """Rewrite an error of jsonargparse.

    Args:
        message: What it says, perhaps in several lines, in the terms of Python's types.

    Returns:
        One line with the option, what it takes and what it was given. What is not recognised stays.
    """
    text = one_line(message)
    for pattern, replacement in _REWRITES:
        text = re.sub(pattern, replacement, text)
    return text


def of_libraries(err: Exception) -> str | None:
    """Say in one line what a run met that is not in its own hands, and the way out.

    Args:
        err: What a library or the system raised.

    Returns:
        The line; None for what may be a mistake of the program, whose trace is wanted.
    """
    reason = one_line(err, _MOST).rstrip(".")
    # by name, so that no library is imported to ask
    packages = {kind.__module__.partition(".")[0] for kind in type(err).__mro__}
    if "wandb" in packages:
        return f"W&B: {reason}; {_way_out_of_wandb(reason)}"
    said = str(err).lower()  # all of it, where what is shown is cut
    if isinstance(err, MemoryError) or any(each in said for each in _NO_MEMORY):
        if any(each in said for each in _OF_GPUS):
            way = "a smaller backbone or crop; nvidia-smi shows what else has the GPU's memory"
        else:
            way = "a smaller backbone or crop, or fewer --data.num_workers"
        return f"out of memory ({reason}); give a smaller batch size, {way}"
    is_of_torch = any(kind.__module__ == "torch.distributed" for kind in type(err).__mro__)
    if is_of_torch or (isinstance(err, RuntimeError) and any(x in said for x in _OF_PROCESSES)):
        return _of_processes(said, reason)
    if packages & _NETWORK:
        return (
            f"the network: {reason}; check the connection and the proxy, or set HF_HUB_OFFLINE=1 "
            "if what is wanted is in the cache"
        )
    if "pyarrow" in packages:
        return f"a table or its file cannot be read: {reason}; make it again"
    if isinstance(err, OSError):
        return _of_system(err, reason)
    return None


def _of_processes(said: str, reason: str) -> str:
    if any(each in said for each in _GONE):
        return "another process stopped; its own message says why"
    if "duplicate gpu" in said:
        return f"two processes have one GPU ({reason}); start as many as there are GPUs"
    if "address already in use" in said:
        return f"another run has this port ({reason}); give this one another MASTER_PORT"
    if "timed out" in said or "timeout" in said:
        return (
            f"other processes did not come, or stand still ({reason}); start all of them, with the "
            "same MASTER_ADDR and MASTER_PORT, and end those that are left of earlier runs"
        )
    return (
        f"the processes cannot talk to each other ({reason}); NCCL_DEBUG=INFO shows why, and "
        "NCCL_SOCKET_IFNAME names the network that they are to use"
    )


def _way_out_of_wandb(reason: str) -> str:
    stay = "WANDB_MODE=offline or --trainer.logger configs/logger/wandb_offline.yaml keeps it here"
    said = reason.lower()
    if any(each in said for each in ("api key", "api_key", "log in", "login", "401")):
        return f"log in (wandb login, or WANDB_API_KEY), or {stay}"
    if any(each in said for each in ("permission", "403", "404", "not found", "entity")):
        return f"check --trainer.logger.project and --trainer.logger.entity, or {stay}"
    return f"check the connection, or {stay}"


def _of_system(err: OSError, reason: str) -> str:
    if err.strerror is None:
        return reason
    where = f"{err.filename}: " if err.filename is not None else ""
    if is_full_disk(err):
        return (
            f"{where}{err.strerror}; make room, or write elsewhere (TMPDIR says where temporary "
            "files go)"
        )
    return f"{where}{err.strerror}"
