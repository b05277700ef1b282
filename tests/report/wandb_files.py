"""Reading an offline W&B run back from its files."""

import json
import struct

BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def log_records(path):
    """The records of a ``.wandb`` file, which is a LevelDB log with a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, pending = 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        pending += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            pending = b""
            yield record


class OfflineRun:
    """The one offline run below a folder: its config, its history, and its media files."""

    def __init__(self, root):
        (self.folder,) = root.glob("wandb/offline-run-*")
        (log,) = self.folder.glob("*.wandb")
        self.config, self.history, self.artifacts = {}, {}, {}
        for record in log_records(log):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                for item in record.history.item:
                    key = item.key or "/".join(item.nested_key)
                    self.history[key] = json.loads(item.value_json)
            elif kind == "artifact":
                contents = record.artifact.manifest.contents
                self.artifacts[record.artifact.name] = [each.path for each in contents]
            elif kind == "config":
                for item in record.config.update:
                    self.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)

    def media(self, key):
        """The file of a figure or a table of the history."""
        return self.folder / "files" / self.history[f"{key}/path"]

    def table(self, key):
        """A table as (columns, rows); a picture in it is a path below the table's artifact."""
        content = json.loads(self.media(key).read_text(encoding="utf-8"))
        return content["columns"], content["data"]
