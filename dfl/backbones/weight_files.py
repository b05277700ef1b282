"""Read files of weights without running code from them, and say of others what they are."""

import io
import json
import pickle
import re
import struct
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfl.errors import BackboneError, one_line

State = dict[str, Tensor]

_HEAD: Final = 1024  # bytes from which a file is recognised
_SHARDS: Final = ".index.json"
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_NO_WEIGHTS: Final = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it, and give the file in it"),
    (b"\x89HDF", "is an HDF5 file (Keras, MATLAB): convert it to safetensors"),
    (b"\x93NUMPY", "is a NumPy array: convert it to safetensors"),
    (b"\xff\xd8", "is a JPEG image: give the file of weights"),
    (b"\x89PNG", "is a PNG image: give the file of weights"),
    (b"%PDF", "is a PDF: give the file of weights"),
)
# what a pickle names to run commands; all else only ever becomes a stand-in
_COMMANDS: Final = {"nt", "os", "posix", "runpy", "shutil", "socket", "subprocess", "sys"}
_CALLS: Final = {"__import__", "compile", "eval", "exec", "open"}
_BUILTINS: Final = {"builtins", "__builtin__"}  # the older name stands in pickles still


def read_state(path: str | Path) -> State:
    """Read all tensors of a file, and run no code from it.

    The format is recognised by the content: safetensors, also in parts with their index
    (``model.safetensors.index.json``), a torch checkpoint of any age, or a TorchScript archive.
    Whatever is no tensor, such as the arguments of a training script or a pickled class, becomes a
    stand-in that does nothing and is left out.

    Args:
        path: The file; a relative path is taken from the working directory.

    Returns:
        Tensors on the CPU by where they lie in the file, such as ``teacher.backbone.cls_token``.

    Raises:
        BackboneError: If the file is missing, damaged, holds no tensors, or is something else; says
            what it is.
    """
    path = Path(path)
    source = f"weights {str(path)!r}"
    if path.is_dir():
        inside = sorted(each.name for each in path.iterdir() if each.suffix in _ENDINGS)
        raise BackboneError(
            f"{source}: is a folder; give the file in it: {', '.join(inside) or 'it has none'}"
        )
    if not path.is_file():
        raise BackboneError(f"{source}: no such file; give a .safetensors file or a checkpoint")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    state = dict(_tensors(_loaded(path, head, source)))
    if not state:
        raise BackboneError(f"{source}: holds no tensors; give the file of a model's state_dict")
    return state


_ENDINGS: Final = {".safetensors", ".bin", ".pth", ".pt", ".ckpt"}


def weights_in(folder: Path) -> Path:
    """Find the one file of weights in a folder that a model was saved to.

    Args:
        folder: A folder, as timm, open_clip and transformers write it.

    Raises:
        BackboneError: If there is none, or which one cannot be told.
    """
    found = sorted(each for each in folder.iterdir() if each.suffix in _ENDINGS)
    safe = [each for each in found if each.suffix == ".safetensors"]
    chosen = safe if len(safe) == 1 else found  # the same weights are often there in both formats
    if len(chosen) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise BackboneError(
            f"{folder}: one file of weights is expected there, and there are {names}; "
            "give one as weights: path"
        )
    return chosen[0]


def _loaded(path: Path, head: bytes, source: str) -> object:
    """Load what a file holds, by its content."""
    if (other := _something_else(path, head)) is not None:
        raise BackboneError(f"{source}: {other}")
    try:
        if path.name.endswith(_SHARDS):
            return _shards(path)
        if head[8:9] == b"{":
            _check_length(path, head, source)
            return load_file(path)
        return _checkpoint(path, source)
    except BackboneError:
        raise
    except _RunsCommandsError as err:
        raise BackboneError(
            f"{source}: unpickling it would run {err}: it is no file of weights; do not use it"
        ) from err
    except Exception as err:  # what is no checkpoint fails wherever it is taken for one
        reason = one_line(_COLOUR.sub("", str(err)).partition("\n")[0] or err, 120)
        raise BackboneError(
            f"{source}: cannot be read as safetensors or as a torch checkpoint ({reason}); it is "
            f"damaged, cut short, or something else: it has {path.stat().st_size:,} bytes, compare "
            "that with its source, and get it again"
        ) from err


def _something_else(path: Path, head: bytes) -> str | None:
    """Say what a file is that holds no weights, None if it may hold some."""
    text = head.lstrip().lower()
    if not head:
        return "is empty; get it again"
    if head.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, the note that stands for the file until it is fetched; run "
            "`git lfs pull` in its repository, or download the file itself"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        title = re.search(rb"<title>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        named = f" ({one_line(title[1].decode(errors='replace'), 60)})" if title else ""
        return (
            f"is a web page{named}, which was saved in place of the file; open its address in a "
            "browser, and download the file itself"
        )
    if text.startswith((b"{", b"[")) and not path.name.endswith(_SHARDS):
        return "is JSON text, such as a model's configuration; give the file of weights"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it, and give the file in it"
    return next((words for start, words in _NO_WEIGHTS if head.startswith(start)), None)


def _shards(index: Path) -> State:
    """Read the parts that an index lists."""
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    state: State = {}
    for name in files:
        state |= read_state(index.parent / name)
    return state


def _check_length(path: Path, head: bytes, source: str) -> None:
    """Refuse a safetensors file that ends before its last tensor does."""
    size, length = path.stat().st_size, struct.unpack("<Q", head[:8])[0]
    with path.open("rb") as file:
        table = file.read(8 + length)[8:] if length < size else b""
    ends = [0]
    if table:
        ends += [each["data_offsets"][1] for each in json.loads(table).values() if "dtype" in each]
    wanted = 8 + length + max(ends)
    if size < wanted:
        raise BackboneError(
            f"{source}: is cut short: it has {size:,} bytes, and its own table asks for "
            f"{wanted:,}{'' if table else ' and more'}; get it again"
        )


def _checkpoint(path: Path, source: str) -> object:
    """Load what torch has saved: a checkpoint of any age, or an archive of TorchScript."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        if not zipfile.is_zipfile(path):
            raise BackboneError(
                f"{source}: is cut short: it has {path.stat().st_size:,} bytes, and the table at "
                "its end is missing; get it again"
            )
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inside = {name.partition("/")[2] for name in names}
            if all(name.endswith(".npy") for name in names):
                raise BackboneError(
                    f"{source}: is a NumPy archive, as authors who use JAX publish weights; give "
                    "the same weights as a file of PyTorch"
                )
            if "data.pkl" not in inside:
                some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                raise BackboneError(
                    f"{source}: is a zip archive of something else ({some}); unpack it, and give "
                    "the file of weights in it"
                )
            if "constants.pkl" in inside:
                return _with_stand_ins(_without_code(archive))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it names classes that torch does not take for data
        return _with_stand_ins(path)


def _without_code(archive: zipfile.ZipFile) -> io.BytesIO:
    """Copy an archive of TorchScript without its programs: what is left is a plain checkpoint."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        for name in archive.namelist():
            inner = name.partition("/")[2]
            if not inner.startswith(("code/", "constants")):
                target.writestr(name, archive.read(name))
    copy.seek(0)
    return copy


def _with_stand_ins(file: Path | io.BytesIO) -> object:
    """Load a checkpoint in which every class and function but a tensor's is a stand-in."""
    with warnings.catch_warnings():
        # of classes that were pickled with their source, which is not looked at
        warnings.simplefilter("ignore")
        return torch.load(
            file,
            map_location="cpu",
            pickle_module=_Plain,
            # `_Plain` decides what a name becomes, and nothing that it gives runs code
            weights_only=False,
            encoding="latin1",
        )


class _StandIn(dict[Hashable, object]):
    """What a pickle gets for a class or function of its own: it keeps attributes, and runs nothing.

    Args:
        arguments: Are left alone.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            self.update(state)

    def __call__(self, *arguments: object) -> "_StandIn":
        return self

    def append(self, item: object) -> None:
        """Take an item of a list, and drop it."""

    def extend(self, items: object) -> None:
        """Take items of a list, and drop them."""

    def add(self, item: object) -> None:
        """Take an item of a set, and drop it."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key


class _RunsCommandsError(Exception):
    """A pickle that names what runs commands."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  # as pickle has it
        """Give what a name of a pickle stands for."""
        if module.partition(".")[0] in _COMMANDS or (module in _BUILTINS and name in _CALLS):
            raise _RunsCommandsError(f"{module}.{name}")
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        # made anew for each pickle, so that none can leave anything behind in them
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            rebuild: Callable[..., Tensor] = getattr(torch._utils, name)
            return lambda *arguments: rebuild(*arguments)
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda data, *_: data
        return type("_Absent", (_StandIn,), {})


class _Plain(types.ModuleType):
    """Takes the place of the module ``pickle`` for ``torch.load``."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: io.BufferedReader, **options: Any) -> object:  # noqa: ANN401
        """Read one pickle."""
        return _Unpickler(file, **options).load()


def _tensors(
    value: object, name: str = "", inside: frozenset[int] = frozenset()
) -> Iterator[tuple[str, Tensor]]:
    """List the tensors in nested containers by their place."""
    if isinstance(value, Tensor):
        yield name, value.detach()
        return
    if id(value) in inside:  # modules may hold one another
        return
    inside |= {id(value)}
    if isinstance(value, Mapping):
        for key, item in _entries(value):
            yield from _tensors(item, f"{name}.{key}" if name else str(key), inside)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}.{i}" if name else str(i), inside)


def _entries(value: Mapping[Any, object]) -> Iterator[tuple[object, object]]:
    """List what a mapping holds; of a pickled module what its state_dict would."""
    kinds = [value.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
    named = [each for each in kinds if isinstance(each, Mapping)]
    for each in named if len(named) == len(kinds) else [value]:
        yield from each.items()
