"""Which picture is meant in a file that holds several: the full one, or an error where none is.

A thumbnail, a preview or a poster may come first. What is read is the first picture that is not
marked as a reduced copy; where the file holds a larger one beside it, nothing says which is meant.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from PIL import Image
from PIL.IcnsImagePlugin import IcnsImageFile
from PIL.MpoImagePlugin import MpoImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PsdImagePlugin import PsdImageFile

Size = tuple[int, int]

_ALONE: Final = "save the one that is meant as a file of its own"
_MOST_PAGES: Final = 4096


class AmbiguousPictureError(Exception):
    """Several pictures, of which the file does not say which is meant.

    Attributes:
        what: What the file is or holds.
        remedy: What to do about it.
    """

    def __init__(self, what: str, remedy: str = _ALONE) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def full_picture(data: bytes) -> bytes:
    """Make the picture that is meant the first one of its file.

    Args:
        data: The content of an image file.

    Returns:
        The same bytes, or others of which a decoder that reads the first picture reads the right
        one.

    Raises:
        AmbiguousPictureError: If the file does not say which is meant.
    """
    if data[:4] in _TIFF:
        return _of_tiff(data)
    if data[:4] == b"\0\0\1\0":
        return _of_icon(data)
    if data[4:8] == b"ftyp":
        _check_media(data)
    return data


def settle_picture(image: Image.Image, data: bytes) -> None:
    """Make sure that the picture which Pillow is about to read is the one that is meant.

    Args:
        image: An image that was opened and not read yet.
        data: The file that it was opened from.

    Raises:
        AmbiguousPictureError: If the file does not say which is meant.
    """
    if isinstance(image, IcnsImageFile):
        largest = max(image.info["sizes"], key=lambda size: size[0] * size[2])
        if largest[0] * largest[2] > image.size[0]:
            width, height, scale = image.best_size = largest
            image.size = (width * scale, height * scale)
    elif isinstance(image, PngImageFile) and image.is_animated and image.default_image:
        raise AmbiguousPictureError(
            "holds a picture for programs that play no animations, and an animation without it"
        )
    elif isinstance(image, PsdImageFile):
        # ID 1057: four bytes for the version, then whether the layers were merged into a picture
        if any(key == 1057 and value[4:5] == b"\0" for key, _, value in image.resources):
            raise AmbiguousPictureError(
                "holds layers without the picture that they make",
                "save it with 'Maximize compatibility', or export it as PNG",
            )
    elif isinstance(image, MpoImageFile):
        _check_larger(image.size, _sizes_in_mpo(data))


def _check_larger(read: Size, others: list[Size], what: str = "the first") -> None:
    largest = max(others, key=_pixels, default=read)
    if _pixels(largest) > _pixels(read):
        (width, height), (w, h) = largest, read
        raise AmbiguousPictureError(
            f"holds a picture of {width} x {height} pixels beside {what} one, of {w} x {h}"
        )


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _sizes_in_mpo(data: bytes) -> list[Size]:
    sizes = []
    with suppress(Exception), Image.open(io.BytesIO(data), formats=["JPEG"]) as other:
        for frame in range(1, getattr(other, "n_frames", 1)):
            other.seek(frame)
            sizes.append(other.size)
    return sizes


# --------------------------------------------------------------------------- icons


def _of_icon(data: bytes) -> bytes:
    """Leave the entry of an icon that has most pixels, and of these most colours."""
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [data[6 + 16 * n : 22 + 16 * n] for n in range(count)]
    if count < 2 or len(entries[-1]) < 16:
        return data
    best = max(entries, key=lambda entry: _quality(data, entry))
    return data[:4] + struct.pack("<H", 1) + best + data[22:]


def _quality(data: bytes, entry: bytes) -> tuple[int, int]:
    """Return the pixels and the depth of an entry, which its picture knows better than the list."""
    (start,) = struct.unpack_from("<I", entry, 12)
    picture = data[start : start + 40]
    with suppress(struct.error):
        if picture.startswith(b"\x89PNG"):
            width, height, bits, colours = struct.unpack_from(">IIBB", picture, 16)
            return width * height, bits * {0: 1, 2: 3, 3: 1, 4: 2}.get(colours, 4)
        width, height, _, bits = struct.unpack_from("<iiHH", picture, 4)
        return abs(width * height) // 2, bits  # the height counts the mask, too
    return 0, 0


# --------------------------------------------------------------------------- TIFF, DNG and the like

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _CHILDREN = 254, 255, 256, 257, 262, 330
_DNG: Final = 50706
_OF_SENSORS: Final = (32803, 34892)  # a mosaic of colours, and one that was filled in
_CODES: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_WANTED: Final = frozenset({_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _CHILDREN, _DNG})


class _Page(NamedTuple):
    """A directory of a TIFF: a picture, and where it is described."""

    place: int
    tags: dict[int, tuple[int, ...]]

    def value(self, tag: int) -> int:
        return next(iter(self.tags.get(tag, ())), 0)

    @property
    def size(self) -> Size:
        return self.value(_WIDTH), self.value(_HEIGHT)

    @property
    def is_reduced(self) -> bool:
        return bool(self.value(_KIND) & 1) or self.value(_OLD_KIND) == 2

    @property
    def is_mask(self) -> bool:
        return bool(self.value(_KIND) & 4)


def _of_tiff(data: bytes) -> bytes:
    """Let the header of a TIFF point to the first page that is no reduced copy."""
    order, is_big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    pages = list(_tiff_pages(data, order, is_big))
    if not pages:
        return data  # the decoder says what is wrong
    of_sensor = any(page.value(_PHOTOMETRIC) in _OF_SENSORS for page in pages)
    if of_sensor or data[8:10] == b"CR":
        raise AmbiguousPictureError(
            "is a camera's raw file, of which a preview at most could be read",
            "develop it, as darktable or rawpy do, and give the picture",
        )
    full = next((page for page in pages if not page.is_reduced and not page.is_mask), pages[0])
    _check_larger(full.size, [page.size for page in pages if not page.is_mask])
    if full is pages[0]:
        return data
    place = struct.pack(order + ("Q" if is_big else "I"), full.place)
    at = 8 if is_big else 4
    return data[:at] + place + data[at + len(place) :]


def _tiff_pages(data: bytes, order: str, is_big: bool) -> Iterator[_Page]:
    """Go through the pages of a TIFF, each followed by the pages that are under it."""
    word = struct.Struct(order + ("Q" if is_big else "I"))
    with suppress(struct.error):
        ahead, seen = list(word.unpack_from(data, 8 if is_big else 4)), set[int]()
        while ahead and len(seen) < _MOST_PAGES:
            place = ahead.pop()
            if not place or place in seen:
                continue
            seen.add(place)
            try:
                tags, after = _directory(data, place, order, word)
            except struct.error:
                continue
            yield _Page(place, tags)
            ahead += [after, *reversed(tags.get(_CHILDREN, ()))]


def _directory(
    data: bytes, place: int, order: str, word: struct.Struct
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read the tags of a page that matter here, and where the next page is."""
    (entries,) = struct.unpack_from(order + ("Q" if word.size == 8 else "H"), data, place)
    entry = struct.Struct(f"{order}HH{word.format[-1]}{word.size}s")
    start = place + (8 if word.size == 8 else 2)
    end = start + entries * entry.size
    (after,) = word.unpack_from(data, end)  # raises where there are fewer entries
    tags = {}
    for tag, kind, length, value in entry.iter_unpack(data[start:end]):
        if tag in _WANTED and kind in _CODES and length <= _MOST_PAGES:
            code = f"{order}{length}{_CODES[kind]}"
            try:
                if struct.calcsize(code) <= word.size:
                    tags[tag] = struct.unpack_from(code, value)
                else:
                    tags[tag] = struct.unpack_from(code, data, *word.unpack(value))
            except struct.error:
                continue
    return tags, int(after)


# --------------------------------------------------------------------------- HEIF and AVIF

_PICTURES: Final = frozenset(
    {b"av01", b"hvc1", b"hev1", b"vvc1", b"avc1", b"jpeg", b"j2k1", b"unci", b"grid", b"iovl"}
    | {b"iden"}
)
_CONTAINERS: Final = (b"meta", b"iprp", b"moov", b"trak")


def _check_media(data: bytes) -> None:
    """Refuse a file whose main picture is not its largest."""
    boxes = dict[bytes, list[bytes]]()
    with suppress(struct.error):
        for kind, content in _boxes(data):
            boxes.setdefault(kind, []).append(content)
    sizes, primary = dict[int, Size](), 0
    with suppress(struct.error, IndexError):
        sizes, primary = _items(boxes)
    tracks = [
        (width >> 16, height >> 16)
        for content in boxes.get(b"tkhd", [])
        if len(content) >= 8
        for width, height in [struct.unpack(">II", content[-8:])]
    ]
    plays = data[8:12] == b"avis" and tracks
    read = max(tracks, key=_pixels) if plays else sizes.get(primary)
    if read is not None:
        _check_larger(read, [*sizes.values(), *tracks], "the main")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go through the boxes of a file, and those that are in boxes of boxes."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        end = len(data) if size == 0 else at + size
        if end < at + head:
            return
        if kind in _CONTAINERS:
            yield from _boxes(data[at + head + 4 * (kind == b"meta") : end])
        elif kind != b"mdat":
            yield kind, data[at + head : end]
        at = end


def _items(boxes: dict[bytes, list[bytes]]) -> tuple[dict[int, Size], int]:
    """Return the sizes of the pictures that stand for themselves, by number, and the main one."""
    (pitm,), (iinf,) = boxes.get(b"pitm", [b""]), boxes.get(b"iinf", [b""])
    (primary,) = struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)
    kinds = {}
    for kind, infe in _boxes(iinf[8 if iinf[0] else 6 :]):
        if kind == b"infe" and infe[0] >= 2:
            number, _, what = struct.unpack_from(">IH4s" if infe[0] > 2 else ">HH4s", infe, 4)
            if what in _PICTURES and not infe[3] & 1:  # not hidden
                kinds[number] = what
    for iref in boxes.get(b"iref", []):
        word = "I" if iref[0] else "H"
        for kind, reference in _boxes(iref[4:]):
            source, count = struct.unpack_from(f">{word}H", reference)
            targets = struct.unpack_from(f">{count}{word}", reference, struct.calcsize(f">{word}H"))
            # a thumbnail and an alpha channel are of another picture, a tile is a part of one
            for number in [source] * (kind in (b"thmb", b"auxl")) + [*targets] * (kind == b"dimg"):
                if number != primary:
                    kinds.pop(number, None)
    sizes = _sizes_of_items(boxes)
    return {number: sizes[number] for number in kinds if number in sizes}, primary


def _sizes_of_items(boxes: dict[bytes, list[bytes]]) -> dict[int, Size]:
    (ipco,) = boxes.get(b"ipco", [b""])
    extents = [_extent(kind, content) for kind, content in _boxes(ipco)]
    sizes = dict[int, Size]()
    for ipma in boxes.get(b"ipma", []):
        (count,) = struct.unpack_from(">I", ipma, 4)
        at, number, index = 8, "I" if ipma[0] else "H", "H" if ipma[3] & 1 else "B"
        for _ in range(count):
            item, links = struct.unpack_from(f">{number}B", ipma, at)
            at += struct.calcsize(f">{number}B")
            places = struct.unpack_from(f">{links}{index}", ipma, at)
            at += struct.calcsize(f">{links}{index}")
            for place in places:  # the first bit says whether the property is essential
                place &= 0x7FFF if index == "H" else 0x7F
                if 0 < place <= len(extents) and (size := extents[place - 1]) is not None:
                    sizes[item] = min(size, sizes.get(item, size))  # cut, where it is both
    return sizes


def _extent(kind: bytes, content: bytes) -> Size | None:
    """Return the size that a property gives: as it is coded, or what is cut out of that."""
    if kind == b"ispe":
        width, height = struct.unpack_from(">II", content, 4)
        return width, height
    if kind == b"clap":
        across, of, down, by = struct.unpack_from(">4I", content)
        return across // max(of, 1), down // max(by, 1)
    return None
