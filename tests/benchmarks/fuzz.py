"""Damage image files in every way, and see what decoding makes of them, and what others do.

    python -m tests.benchmarks.fuzz --files 20000

Bits are flipped, bytes and chunks lost, put in and repeated, lengths changed, ends cut off. Every
file must be read or named in one line, in less than five seconds and a gibibyte, without a line of
a C library on the terminal. Pixels are held against Pillow's, and OpenCV's and libvips' where they
are installed (`pip install opencv-python-headless "pyvips[binary]"`). A small part is a test.
"""

import argparse
import io
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dfl.data.images.decode import decode_noting
from dfl.errors import ImageError

WAYS = ("bit", "bits", "lost", "in", "zeros", "cut", "twice", "chunk", "length")
LIMIT_S = 5.0
LIMIT_MIB = 1024
KINDS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "JPEG": [("RGB", {}), ("RGB", {"progressive": True}), ("L", {"restart_marker_blocks": 4})],
    "PNG": [("RGB", {}), ("P", {}), ("L", {"compress_level": 1})],
    "WEBP": [("RGB", {}), ("RGB", {"lossless": True})],
    "GIF": [("P", {}), ("L", {})],
    "TIFF": [
        *(("RGB", {"compression": each}) for each in (None, "tiff_lzw", "tiff_adobe_deflate")),
        *(("RGB", {"compression": "jpeg"}), ("1", {"compression": "group4"})),
    ],
    "AVIF": [("RGB", {"quality": 80})],
}


class Verdict(NamedTuple):
    """What became of one file."""

    said: str  # sound, damaged, or why it was refused
    pixels: str  # as before, or other ones
    fault: str  # what must not be
    seconds: float
    grown_mib: float  # by which the largest memory of the process grew


def originals() -> dict[str, list[tuple[bytes, np.ndarray]]]:
    """Make sound files of each kind, and their pixels."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(values).resize((144, 108), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    found: dict[str, list[tuple[bytes, np.ndarray]]] = {}
    for kind, forms in KINDS.items():
        for mode, options in forms:
            stream = io.BytesIO()
            tagged = {} if kind in ("GIF", "TIFF") else {"exif": exif}
            picture.convert(mode).save(stream, kind, **options, **tagged)
            data = stream.getvalue()
            found.setdefault(kind, []).append((data, decode_noting(data).pixels.numpy()))
    return found


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Cut a file where its format does, roughly: at markers of a JPEG, and at names of chunks."""
    if data.startswith(b"\xff\xd8"):
        places = [n for n in range(len(data) - 1) if data[n] == 0xFF and data[n + 1] > 0xBF]
    else:
        names = (n for n in range(4, len(data) - 4) if data[n : n + 4].isalpha())
        places = [n - 4 for n in names]
    if not places:
        return []
    return list(zip(places, [*places[1:], len(data)], strict=True))


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Damage a file in one to three ways."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place, count = draw.randrange(len(found)), draw.choice((1, 2, 4, 16, 64, 256))
        match draw.choice(
            ("bit", "bits", "lost", "in", "zeros", "cut", "twice", "chunk", "length")
        ):
            case "bit":
                found[place] ^= 1 << draw.randrange(8)
            case "bits":
                for _ in range(8):
                    found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
            case "lost":
                del found[place : place + count]
            case "in":
                found[place:place] = draw.randbytes(count)
            case "zeros":
                found[place : place + count] = bytes(len(found[place : place + count]))
            case "cut":
                del found[place:]
            case "twice":
                found[place:place] = found[place : place + count]
            case "chunk":
                parts = chunks(bytes(found)) or [(0, len(found))]
                start, end = draw.choice(parts)
                part = found[start:end]
                if draw.random() < 0.5:
                    del found[start:end]
                else:
                    at = draw.choice(parts)[0]
                    found[at:at] = part
            case "length":
                parts = chunks(bytes(found)) or [(place, place)]
                start = draw.choice(parts)[0] + 2 * found.startswith(b"\xff\xd8")
                size = 2 if found.startswith(b"\xff\xd8") else 4
                value = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, draw.randrange(2**16)))
                found[start : start + size] = (value % 256**size).to_bytes(size, "big")
        if not found:
            return b"\0"
    return bytes(found)


def pillow(data: bytes) -> np.ndarray:
    """Decode as one does with Pillow."""
    with Image.open(io.BytesIO(data), formats=list(KINDS)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            colours = upright.convert("RGBA")
            white = Image.new("RGBA", colours.size, "white")
            upright = Image.alpha_composite(white, colours)
        return np.asarray(upright.convert("RGB")).transpose(2, 0, 1)


def opencv(data: bytes) -> np.ndarray:
    """Decode with OpenCV."""
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise ValueError("not read")
    return found[..., ::-1].transpose(2, 0, 1)


def libvips(data: bytes) -> np.ndarray:
    """Decode with libvips."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.hasalpha():
        image = image.flatten(background=255)
    return image.colourspace("srgb").cast("uchar").numpy()[..., :3].transpose(2, 0, 1)


DECODERS: dict[str, tuple[str, Callable[[bytes], np.ndarray]]] = {
    "Pillow": ("PIL", pillow),
    "OpenCV": ("cv2", opencv),
    "libvips": ("pyvips", libvips),
}


def judge(data: bytes, wanted: np.ndarray) -> tuple[Verdict, np.ndarray | None]:
    """Decode a file; give the verdict and the pixels, if there are any."""
    pixels: np.ndarray | None = None
    said, fault = "sound", ""
    with quiet() as heard:
        before, start = peak_mib(anew=True), time.perf_counter()
        try:
            decoded = decode_noting(data, "file")
            pixels = decoded.pixels.numpy()
            said = "damaged" if decoded.damage else "sound"
        except ImageError as err:
            said = str(err)
            fault = "" if said.startswith("file: ") and "\n" not in said else f"says {said!r}"
        except Exception as err:
            fault = f"{type(err).__name__}: {err}"
        seconds, grown = time.perf_counter() - start, peak_mib() - before
        if seconds > LIMIT_S or grown > LIMIT_MIB:
            fault = fault or f"{seconds:.1f} s, {grown:.0f} MiB"
        if os.fstat(heard).st_size:
            fault = fault or f"on the terminal: {os.pread(heard, 200, 0)!r}"
    same = "" if pixels is None else "as before" if equal(pixels, wanted) else "other"
    return Verdict(said, same, fault, seconds, grown), pixels


def compare(pixels: np.ndarray | None, name: str, data: bytes) -> str:
    """Say what another decoder makes of a file, against ours."""
    try:
        with quiet():
            theirs = DECODERS[name][1](data)
    except Exception:
        return "neither" if pixels is None else "ours alone"
    if pixels is None:
        return "theirs alone"
    return "equal" if equal(pixels, theirs) else "different"


def equal(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two images are the same."""
    return one.shape == two.shape and bool((one == two).all())


@contextmanager
def quiet() -> Iterator[int]:
    """Keep the terminal free; give the file that has what would be on it."""
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file.fileno()
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def peak_mib(*, anew: bool = False) -> float:
    """Return the largest memory of this process so far; 0 where the system does not tell.

    Args:
        anew: Whether to count from now on.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024


def _work(connection: Connection, seed: int) -> None:
    warnings.simplefilter("ignore")
    sound = originals()
    while True:
        kind, number = connection.recv()
        draw = random.Random(f"{seed}:{number}")
        data, wanted = draw.choice(sound[kind])
        damaged = mutant(data, draw)
        verdict, pixels = judge(damaged, wanted)
        connection.send(verdict)
        for name in installed():
            connection.send(compare(pixels, name, damaged))


def installed() -> list[str]:
    """Name the other decoders that are there."""
    return [name for name, (module, _) in DECODERS.items() if find_spec(module)]


def run(files: int, seed: int) -> Iterator[tuple[str, int, Verdict, dict[str, str]]]:
    """Judge files one after the other, in a process that may die or hang."""
    context = multiprocessing.get_context("fork")
    process = None
    for number in range(files):
        kind = list(KINDS)[number % len(KINDS)]
        if process is None:
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, seed), daemon=True)
            process.start()
            there.close()
        verdict, others = None, {}
        try:
            here.send((kind, number))
            verdict = _receive(here)
            for name in installed():
                others[name] = "died"
                others[name] = _receive(here)
        except (EOFError, TimeoutError, ConnectionError) as err:
            process.kill()
            process.join()
            end = "hangs" if isinstance(err, TimeoutError) else f"ends with {process.exitcode}"
            verdict = verdict or Verdict("", "", f"the process {end}", 0.0, 0.0)
            process = None
        yield kind, number, verdict, others
    if process is not None:
        process.kill()


def _receive(connection: Connection) -> Any:
    if not connection.poll(4 * LIMIT_S):
        raise TimeoutError
    return connection.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tables: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    others: dict[tuple[str, str], Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    slowest, largest, faults = 0.0, 0.0, []
    for kind, number, verdict, compared in run(given.files, given.seed):
        known = verdict.said in ("sound", "damaged")
        row = f"{verdict.said}, {verdict.pixels}" if known else "refused"
        tables[kind][row] += 1
        slowest, largest = max(slowest, verdict.seconds), max(largest, verdict.grown_mib)
        if verdict.fault:
            faults.append(f"{kind} {number}: {verdict.fault}")
            print(faults[-1], file=sys.stderr, flush=True)
        for name, found in compared.items():
            others.setdefault((kind, name), Counter())[found] += 1
            if name == "Pillow" and found in ("different", "theirs alone"):
                reasons[kind][f"{found}: {verdict.said.split(' (')[0]}"] += 1
    columns = (
        "refused",
        "damaged, other",
        "damaged, as before",
        "sound, as before",
        "sound, other",
    )
    print(f"| format | files | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for kind, table in tables.items():
        counts = " | ".join(str(table[column]) for column in columns)
        print(f"| {kind} | {table.total()} | {counts} |")
    words = ("equal", "different", "ours alone", "theirs alone", "neither", "died")
    print(f"\n| format | decoder | {' | '.join(words)} |\n|{'---|' * (len(words) + 2)}")
    for (kind, name), counter in others.items():
        print(f"| {kind} | {name} | {' | '.join(str(counter[word]) for word in words)} |")
    for kind, counter in reasons.items():
        for reason, count in counter.most_common(8):
            print(f"{kind}: {count} {reason}")
    print(f"slowest {slowest:.2f} s and at most {largest:.0f} MiB more for one file")
    print(f"{len(faults)} faults")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
