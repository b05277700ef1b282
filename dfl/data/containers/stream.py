"""Images in a stream of Hugging Face's datasets, described by a small file."""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Final

from dfl.data.containers.base import ContainerError
from dfl.data.containers.hub import HubSplit, fetch, open_stream, stream_rows
from dfl.data.containers.table import TableFile, row_of
from dfl.files import writing

__all__ = ["StreamFile", "write_stream"]

HELD_ROWS: Final = 96  # threads that read in order are never this far apart


def write_stream(path: Path, source: HubSplit, *, image: str, rows: list[int]) -> None:
    """Describe a stream in a file, which then stands for it as a container.

    Args:
        path: The file; its name ends in ``.hf.json``.
        source: What is streamed.
        image: The column of images.
        rows: How many rows each of its shards has.
    """
    text = json.dumps({**vars(source), "image": image, "rows": rows}, indent=1)
    with suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return  # what was found out about its images is kept as long as the file is the same
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


class StreamFile(TableFile):
    """The images of a stream by column and row.

    A cursor goes forward. Reading before it begins again at the first row of a shard: ascending
    order is fast, any other is slow.

    Args:
        path: The description of the stream.

    Raises:
        FileNotFoundError: If there is no such file.
        ContainerError: If it is damaged.
        DataError: If the ``datasets`` package is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            self._image = str(facts.pop("image"))
            rows = [int(count) for count in facts.pop("rows")]
            self._source = HubSplit(**facts)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise ContainerError(
                f"{path}: describes no stream; delete it and the split file beside it"
            ) from err
        self._starts = [0, *accumulate(rows)]
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._shard = self._next = 0
        self._cells: Iterator[object] | None = None

    def read(self, member: str) -> bytes:
        """Return the bytes of an image; threads take turns."""
        _, row = self._place(member)
        with self._lock:
            if row not in self._held:
                self._go_to(row, member)
            return self._held[row]

    def _place(self, member: str) -> tuple[str, int]:
        return row_of(self.path, member, self._starts[-1], [self._image])

    def _go_to(self, row: int, member: str) -> None:
        shard = bisect_right(self._starts, row) - 1
        start = self._starts[shard]
        if self._cells is None or shard != self._shard or self._next > row:
            self._shard, self._next = shard, max(start, row - HELD_ROWS // 2)
            self._cells = self._open(shard, self._next - start)
        try:
            while self._next <= row:
                self._take(self._cells, row, member)
        except BaseException:
            self._cells = None  # the cursor may be ahead of the count
            raise
        while len(self._held) > HELD_ROWS:
            self._held.popitem(last=False)

    def _take(self, cells: Iterator[object], row: int, member: str) -> None:
        """Take the next row, and hold it if it is near the one that is wanted."""
        try:
            cell = next(cells)
        except StopIteration:
            raise ContainerError(
                f"{self.path}: its stream ends before row {row}; it has changed, so delete "
                "this file and the split file beside it"
            ) from None
        if self._next > row - HELD_ROWS:
            self._held[self._next] = fetch(cell, self.path, member)
        self._next += 1

    def _open(self, shard: int, skipped: int) -> Iterator[object]:
        stream = open_stream(self._source).select_columns([self._image])
        for row in stream_rows(stream, shard, skipped=skipped, source=str(self.path)):
            yield row[self._image]
