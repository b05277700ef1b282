"""Containers of images for tests."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(seed: int) -> bytes:
    """Encode a small image that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pack_tar(path: Path, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = files.items() if isinstance(files, Mapping) else files
    with tarfile.open(path, "w") as tar:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def image_table(images: list[bytes | None], **columns: list[object]) -> pa.Table:
    """Make a table as Hugging Face writes it, without its notes."""
    cells = [
        None if image is None else {"bytes": image, "path": f"scene{i // 2}_{i}.png"}
        for i, image in enumerate(images)
    ]
    return pa.table({"image": pa.array(cells, IMAGE), **columns})


def noted(table: pa.Table, **features: dict[str, object]) -> pa.Table:
    """Add the notes that Hugging Face's library keeps in a schema."""
    info = {"info": {"features": features}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def pack_parquet(path: Path, table: pa.Table, *, group: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def pack_arrow(path: Path, table: pa.Table, *, batch: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def save_to_disk(folder: Path, table: pa.Table) -> Path:
    """Write a folder of two Arrow files as Hugging Face's ``save_to_disk`` does."""
    half = table.num_rows // 2
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    pack_arrow(folder / names[0], table.slice(0, half))
    pack_arrow(folder / names[1], table.slice(half))
    state = {"_data_files": [{"filename": name} for name in names]}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def pack_data(folder: Path, count: int = 20) -> None:
    """Write what the packed data modules in ``configs/data`` read, half of it of each class."""
    images: list[bytes | None] = [png(i) for i in range(count)]
    names = ["none" if i % 2 == 0 else f"gan{i % 3}" for i in range(count)]
    labels = ["real" if i % 2 == 0 else "fake" for i in range(count)]
    table = image_table(images, label=labels, generator=names)
    pack_parquet(folder / "parquet" / "0.parquet", table)
    save_to_disk(folder / "saved" / "train", table)
    (folder / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    shard: dict[str, bytes] = {}
    for i in range(count):
        shard[f"{i:04}.png"] = png(i)
        shard[f"{i:04}.cls"] = b"%d" % (i % 2)
        facts = {"generator": names[i], "scene": i // 2 if i < 4 else i}
        shard[f"{i:04}.json"] = json.dumps(facts).encode()
    pack_tar(folder / "shards" / "0.tar", shard)
    pack_tar(folder / "photos.tar", {f"{i}.png": png(100 + i) for i in range(count)})
    pack_parquet(folder / "ldm" / "0.parquet", table.select(["image"]))
