"""Import this where a command takes data modules of images.

Their classes then have short names, as in ``--data PairDataModule``, and the help lists them.
"""

import dfl.data.modules.datamodules
import dfl.data.modules.folder_datamodule
import dfl.data.modules.huggingface_datamodule
import dfl.data.modules.packed_datamodules  # noqa: F401

__all__: list[str] = []
