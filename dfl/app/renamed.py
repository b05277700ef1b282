"""Names of earlier versions in configs and options, and what they are called now."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

# `*` stands for a name that the user chose, `[]` for a place in a list; `init_args` is left out.
KEYS: Final = {
    "data.augment": "train_transforms",
    "data.perturb": "eval_transforms",
    "data.parts": "layers",
    "data.test_fraction": "splits.test_fraction",
    "data.val_fraction": "splits.val_fraction",
    "data.split_dir": "splits.folder",
    "data.root": "source.root",
    "data.pairs": "source.pairs",
    "data.path": "source.path",
    "data.recursive": "source.recursive",
    "data.group": "source.group",
    "data.name": "source.name",
    "data.files": "source.files",
    "data.image": "source.image",
    "data.fields": "source.fields",
    "data.config": "source.config",
    "data.revision": "source.revision",
    "data.data_files": "source.data_files",
    "data.streaming": "source.streaming",
    "data.cache_dir": "source.cache_dir",
    "parts": "layers",
    "views": "conditions",
    "view_use": "condition_use",
    "classifiers": "heads",
    "grids.*.classifiers": "heads",
}
VALUES: Final = {
    ("metric", "accuracy_val"): "accuracy_at_val_threshold",
    ("claims[].axis", "view"): "condition",
    ("claims[].axis", "classifier"): "head",
}
# A name with a dot at its end stands for all names that begin with it; the first that fits counts.
CLASSES: Final = {
    "dfl.data.PairDataModule": "dfl.data.ImageDataModule with the source dfl.data.Pairs",
    "dfl.data.ManifestDataModule": "dfl.data.ImageDataModule with the source dfl.data.ManifestFile",
    "dfl.data.TreeDataModule": "dfl.data.ImageDataModule with the source dfl.data.Tree",
    "dfl.data.FolderDataModule": "dfl.data.ImageDataModule with the source dfl.data.Folder",
    "dfl.data.ParquetDataModule": "dfl.data.ImageDataModule with the source dfl.data.Parquet",
    "dfl.data.WebDatasetDataModule": "dfl.data.ImageDataModule with the source dfl.data.WebDataset",
    "dfl.data.HuggingFaceDataModule": (
        "dfl.data.ImageDataModule with the source dfl.data.HuggingFace"
    ),
    "dfl.demo.study_parts.DemoDataModule": (
        "dfl.data.ImageDataModule with the source dfl.demo.DemoImages"
    ),
    "dfl.demo.study_parts.": "dfl.demo.networks.",
    "dfl.heads.reduction.": "dfl.heads.estimators.",
    "dfl.heads.text_estimators.": "dfl.heads.estimators.",
}


def renamed(value: object, path: str = "") -> Iterator[str]:
    """Say of each old name in a config what it is called now.

    Args:
        value: The config, or a value in it.
        path: Where the value stands, its keys with dots between them.

    Yields:
        One message for each old name.
    """
    name = path.rpartition(".")[2]
    for pattern, new in KEYS.items():
        if fnmatchcase(path, pattern) and path.count(".") == pattern.count("."):
            yield f"{path}: is now {path.removesuffix(name)}{new}"
    if isinstance(value, dict):
        for key, item in value.items():
            inside = path if key == "init_args" else f"{path}.{key}".removeprefix(".")
            yield from renamed(item, inside)
    elif isinstance(value, list):
        for item in value:
            yield from renamed(item, f"{path}[]")
    elif isinstance(value, str):
        if (path, value) in VALUES:
            yield f"{path.replace('[]', '')}: {value} is now {VALUES[path, value]}"
        for old, new in CLASSES.items():
            is_one = value in (old, old.rpartition(".")[2] or old)
            if is_one or (old.endswith(".") and value.startswith(old)):
                where = path.removesuffix(".class_path").removesuffix("[]")
                yield f"{where}: {value} is now {new}{value.removeprefix(old) * (not is_one)}"
                return
