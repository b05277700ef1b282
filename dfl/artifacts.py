"""Artefacts: folders that say what made them, and that are there as a whole or not at all.

A folder's description, a JSON file, holds the checksums of its other files, and its own. A folder
is filled beside its place, brought to the disk, and renamed, while others that want to make it
wait. So nothing that a killed process leaves is ever taken for the whole, and the next one clears
it away.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from dfl.errors import DflError
from dfl.files import checksum_of, fresh, is_full_disk, writing
from dfl.folders import making_folder
from dfl.recipe import Recipe, fingerprint_of

logger = logging.getLogger(__name__)

KEY_DIGITS: Final = 32
REPLACE: Final = "name another, or give --overwrite"

_FILES: Final = "checksums"
_OWN: Final = "checksum"
_REMOVED: Final = ".nfs*"  # as NFS calls what was removed while somebody reads it


@dataclass(frozen=True)
class Kind:
    """A kind of artefact: what its folders are called, and which files belong to them.

    Attributes:
        name: What people call it, such as ``head``.
        error: What is raised where one cannot be read or written.
        document: The file that describes it; JSON.
        format: The number of its format, which a description has as ``format``.
        files: Patterns of its other files, whose checksums the description holds.
        loose: Patterns of files that may lie there, and that may change.
        make: What makes one, for messages.
        remake: What makes a damaged one again, for messages.
        identity: The entries of a description that say what it was made of.
        same: What a folder of the same identity holds, for messages.
        other: What a folder of another identity holds.
    """

    name: str
    error: type[DflError]
    document: str
    format: int
    files: tuple[str, ...]
    loose: tuple[str, ...] = ()
    make: str = "run the same command again"
    remake: str = "run the same command again"
    identity: tuple[str, ...] = ("fingerprint",)
    same: str = "the same"
    other: str = "another"

    def read(self, folder: Path) -> Recipe:
        """Read the description of a folder, which is checked against its own checksum.

        Args:
            folder: The folder.

        Returns:
            What was given to `making`, with the checksums of the other files.

        Raises:
            DflError: Of this kind, if it is missing, damaged, edited or of another format.
        """
        if not folder.is_dir():
            raise self.error(f"{folder}: no such {self.name}; {self.make}")
        if not (folder / self.document).exists():
            raise self.error(
                f"{folder}: not a finished {self.name}, it has no {self.document}; {self.make}"
            )
        description, problem = self._look(folder)
        if problem:
            raise self.error(f"{problem}; {self.remake}")
        return description

    def find(self, folder: Path, fingerprint: str, *, warn: bool = True) -> Recipe | None:
        """Look for a whole artefact: all of its files are read.

        Args:
            folder: Where it would be.
            fingerprint: What it has to be made of.
            warn: Whether the log names a damaged one in a line.

        Returns:
            Its description; None where it is missing, of something else, or damaged.
        """
        if not (folder / self.document).exists():
            return None
        description, problem = self._look(folder)
        if not problem and description.get("fingerprint") != fingerprint:
            return None
        if not problem and (damaged := self.damaged(folder, description)):
            problem = f"{damaged[0]}: damaged"
        if problem and warn:
            logger.warning("%s; it is made anew", problem)
        return None if problem else description

    def is_of(self, folder: Path, fingerprint: str) -> bool:
        """Say whether a folder says that it is of a fingerprint, whatever became of its files."""
        description, problem = self._look(folder)
        return not problem and description.get("fingerprint") == fingerprint

    def files_of(self, description: Recipe) -> list[str]:
        """List the names of the files whose checksums a description has."""
        checksums = description.get(_FILES)
        return list(checksums) if isinstance(checksums, dict) else []

    def damaged(
        self, folder: Path, description: Recipe, *, only: tuple[str, ...] | None = None
    ) -> list[Path]:
        """Read files again and list those that are not what they were: a bit is enough.

        Args:
            folder: The folder.
            description: What `read` gives for it.
            only: Names of files; all by default.

        Returns:
            Those that are missing, unreadable or changed.
        """
        checksums = description.get(_FILES)
        if not isinstance(checksums, dict):
            return [folder / self.document]
        return [
            folder / name
            for name, checksum in checksums.items()
            if (only is None or name in only) and not _is(folder / name, checksum)
        ]

    def check_replaceable(
        self, folder: Path, description: Recipe, *, overwrite: bool, advice: str = REPLACE
    ) -> None:
        """Refuse to write a folder where that would lose something.

        Args:
            folder: Where it is to go.
            description: What is to go there.
            overwrite: Whether another one that is there may be replaced.
            advice: What to do where it may not.

        Raises:
            DflError: Of this kind, if one is there and may not be replaced, or anything else is.
        """
        if not folder.exists():
            return
        if not folder.is_dir():
            raise self.error(f"{folder} is a file; name a folder for the {self.name}")
        there = sorted(path.name for path in folder.iterdir())
        if foreign := [name for name in there if not self._owns(name)]:
            raise self.error(
                f"{folder / foreign[0]} is no part of a {self.name}; move it away, or name another"
            )
        if not there or overwrite:
            return
        present, problem = self._look(folder)
        if problem:
            raise self.error(f"{problem}; {advice}")
        known = set(self.identity) & description.keys()
        is_same = bool(known) and all(present.get(entry) == description[entry] for entry in known)
        raise self.error(f"{folder} already holds {self.same if is_same else self.other}; {advice}")

    @contextmanager
    def making(
        self,
        folder: Path,
        description: Recipe,
        *,
        overwrite: bool = False,
        workspace: Path | None = None,
        synced: bool = True,
        room: int = 0,
    ) -> Iterator[Path]:
        """Give an empty folder to fill; when the block ends it is described and takes its place.

        What a killed process left is put right first. If the block raises, `folder` stays as it is.

        Args:
            folder: Where it goes; its parents are made too. A link stays, and leads to it.
            description: What is stored in its document, ``format`` included.
            overwrite: Whether another one that is there may be replaced.
            workspace: Where the unfinished folder is kept, on the same file system, by a caller
                that has locked `folder`; by default it is locked here, and kept beside it.
            synced: Whether to wait for the disk; what can be made again need not.
            room: How many bytes it takes, for the message where the disk is full; 0 if unknown.

        Yields:
            The folder to fill.

        Raises:
            DflError: Of this kind, if something is there that may not be replaced, or the disk is
                full.
        """
        inside = ""
        try:
            with making_folder(folder, workspace=workspace, synced=synced) as partial:
                inside = str(partial)
                self.check_replaceable(folder, description, overwrite=overwrite)
                yield partial
                self.describe(partial, description)
                # another process may have been faster where nothing can be locked
                self.check_replaceable(folder, description, overwrite=overwrite)
        except OSError as err:
            if isinstance(err, FileNotFoundError) and inside and inside in str(err.filename):
                raise self.error(
                    f"{folder}: another run makes it as well, where locks do not hold between "
                    "machines, and has cleared away what this one has made; let one finish, then "
                    "run the same command again"
                ) from err
            if not is_full_disk(err):
                raise
            need = f" {room / 2**30:.2g} GiB have to be free for it:" if room else ""
            raise self.error(
                f"{folder}: the disk is full ({err.strerror});{need} make room, and run the same "
                "command again"
            ) from err

    def describe(self, folder: Path, description: Recipe) -> None:
        """Write the document of a folder, with the checksums of its files.

        Args:
            folder: The folder.
            description: What made it.
        """
        checksums = {
            path.name: checksum_of(path)
            for path in sorted(folder.iterdir())
            if _matches(path.name, self.files)
        }
        self._write(folder / self.document, description | {_FILES: dict(checksums)})

    def note(self, folder: Path, description: Recipe) -> None:
        """Change what a finished folder says of itself, though not its files.

        Args:
            folder: A folder that the caller has locked.
            description: What `read` gives for it, changed.
        """
        with writing(folder / self.document) as partial:
            self._write(partial, description)

    def _write(self, file: Path, description: Recipe) -> None:
        sealed = _without_own(description)
        sealed[_OWN] = fingerprint_of(sealed)
        file.write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")

    def _look(self, folder: Path) -> tuple[Recipe, str]:
        """Give a folder's description, and what is wrong with it in a few words."""
        file = folder / self.document
        try:
            found = json.loads(fresh(lambda: file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as err:
            return {}, f"{file}: damaged ({err})"
        number = found.get("format") if isinstance(found, dict) else None
        if number != self.format:
            return {}, f"{file}: format {number!r}, this version reads {self.format}"
        if found.get(_OWN) != fingerprint_of(_without_own(found)):
            return {}, f"{file}: damaged or edited"
        return found, ""

    def _owns(self, name: str) -> bool:
        # a process that is killed while it writes a single file leaves it unfinished
        singles = (self.document, *self.loose)
        unfinished = tuple(f".{Path(single).stem}.*" for single in singles)
        return _matches(name, (*self.files, *singles, *unfinished, _REMOVED))


@dataclass(frozen=True)
class Store:
    """Artefacts of one kind in one folder, each under a key: a hash of the recipe that made it.

    Attributes:
        kind: The kind.
        folder: The folder; it need not be there.
    """

    kind: Kind
    folder: Path

    def path(self, key: str) -> Path:
        """Name the folder of an artefact."""
        return self.folder / key

    def keys(self) -> set[str]:
        """List the keys that are there; no file is opened."""
        digits = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}")
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return {path.name for path in there if digits.fullmatch(path.name)}

    def get(self, key: str, *, warn: bool = True) -> Recipe | None:
        """Read the description of an artefact, all of whose files are checked; see `Kind.find`."""
        return self.kind.find(self.path(key), key, warn=warn)

    def workspace(self, key: str) -> Path:
        """Name the folder of what takes long to make, which is kept from one try to the next."""
        return self.folder / f".{key}.making"

    @contextmanager
    def making(
        self, key: str, description: Recipe, *, workspace: Path | None = None
    ) -> Iterator[Path]:
        """Make an artefact; see `Kind.making`. What a power cut damages is made anew: no syncing.

        Args:
            key: What `key_of` gives for its recipe.
            description: What else is to be known of it.
            workspace: Where it is filled by a caller that has locked its `path`.

        Yields:
            The folder to fill.
        """
        identity: Recipe = {"format": self.kind.format, "fingerprint": key}
        with self.kind.making(
            self.path(key),
            identity | description,
            overwrite=True,
            workspace=workspace,
            synced=False,
        ) as partial:
            yield partial


def key_of(recipe: Recipe) -> str:
    """Name on the disk what a recipe makes: hexadecimal digits of its fingerprint."""
    return fingerprint_of(recipe)[:KEY_DIGITS]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _without_own(description: Recipe) -> Recipe:
    return {entry: value for entry, value in description.items() if entry != _OWN}


def _is(path: Path, checksum: object) -> bool:
    try:
        return checksum_of(path) == checksum
    except OSError:
        return False
