"""Import this where a command takes data modules of images.

Their classes then have short names, as in ``--data PairDataModule``, and the help lists them.
"""

import dfl.data.datamodules
import dfl.data.folder_datamodule
import dfl.data.huggingface_datamodule
import dfl.data.packed_datamodules  # noqa: F401

__all__: list[str] = []
