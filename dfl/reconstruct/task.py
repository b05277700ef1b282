"""Reconstruction as Lightning sees it: photographs dealt to processes, and a task that draws them.

On a CPU each pass runs on one thread, and as many passes at once as there are threads, so the bits
of a copy depend on neither; on an accelerator one image goes at a time, and threads write.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, TypedDict

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dfl.artifacts import key_of
from dfl.backbones.weight_files import read_state
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.decode import decode_noting, read_image
from dfl.errors import DataError, ImageError, named
from dfl.features.hashing import content_hashes, distinct_images
from dfl.features.processes import on_every_process, on_first_process
from dfl.folders import locked
from dfl.processes import end_worker_with_parent, own_threads
from dfl.reconstruct.base import Reconstructor
from dfl.reconstruct.copies import JpegTables, jpeg_tables, recompressed, write_copy
from dfl.reconstruct.cropping import native_crop
from dfl.reconstruct.plan import ORIGINAL, Plan, Settings, training_photographs
from dfl.reconstruct.training import TrainedReconstructor, note_of_weights, write_weights

_AHEAD: Final = 2
"""So many photographs may wait for each thread."""


class Work(NamedTuple):
    """A photograph, and in which folders its copies are missing."""

    path: str
    folders: tuple[str, ...]


class Photograph(TypedDict):
    """A photograph as the task gets it."""

    work: Work
    image: Tensor  # uint8, (3, h, w): the crop
    tables: JpegTables | None  # how it was compressed, where copies are to be
    label: Tensor  # int64, (1,), by which the bar counts
    damage: str


class PhotographDataset(Dataset[Photograph]):
    """Photographs in the crop in which they are drawn.

    Args:
        plan: The plan.
        settings: What becomes of every photograph.
        data: The module that the photographs are of.
        work: What is missing.
    """

    def __init__(
        self, plan: Plan, settings: Settings, data: ImageDataModule, work: Sequence[Work]
    ) -> None:
        self._root = Manifest(plan.rows.frame[:0], plan.rows.root)
        self._contents = plan.contents
        self._settings = settings
        self._on_damaged = data.on_damaged
        self._work = work

    def __len__(self) -> int:
        return len(self._work)

    def __getitem__(self, index: int) -> Photograph:
        """Return a photograph.

        Raises:
            ImageError: If it cannot be decoded, is too small, or was changed.
        """
        work = self._work[index]
        file = self._root.resolve(work.path)
        data = read_image(file)
        if sha256(data).hexdigest() != self._contents[work.path]:
            raise ImageError(
                f"{file}: was changed since the photographs were hashed; run the same command again"
            )
        decoded = decode_noting(data, str(file), self._on_damaged)
        crop = native_crop(decoded.pixels, self._settings.unit, self._settings.max_side)
        if crop is None:
            height, width = decoded.pixels.shape[-2:]
            raise ImageError(
                f"{file}: has {width} x {height} pixels, and the reconstructors take "
                f"{self._settings.unit} at least; leave it out of the data"
            )
        return Photograph(
            work=work,
            image=crop,
            tables=jpeg_tables(data) if self._settings.jpeg == "same" else None,
            label=torch.zeros(1, dtype=torch.int64),
            damage=decoded.damage,
        )


class ReconstructionDataModule(pl.LightningDataModule):
    """Find the photographs that are trained on, and deal those whose copies are missing.

    Args:
        data: The images.
        reconstructors: What draws the copies, by name.
        out: The folder of the copies.
        settings: What becomes of every photograph.
        overwrite: Whether copies that were made otherwise may be replaced.

    Attributes:
        plan: What there is to be.
        pending: By folder, how many copies were missing, over all processes.
    """

    plan: Plan

    def __init__(
        self,
        data: ImageDataModule,
        reconstructors: Mapping[str, Reconstructor],
        out: Path,
        settings: Settings,
        *,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        self.data = data
        self.reconstructors = dict(reconstructors)
        self.out = out
        self.settings = settings
        self.overwrite = overwrite
        self.pending: dict[str, int] = {}
        self._work: list[Work] = []
        self._lock = ExitStack()
        # Lightning's switch: there may be fewer photographs than processes
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def prepare_data(self) -> None:
        """Find the images, and split them, once on a node."""
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """Plan for all processes, which share the reading of what is there.

        Raises:
            DataError: If no photograph is trained on, or the folder holds other copies that may not
                be replaced.
        """
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("a ReconstructionDataModule is only used by a Trainer")
        self.data.setup(stage)
        rows = training_photographs(self.data.manifest)
        rank, several = trainer.global_rank, trainer.world_size
        paths = distinct_images(rows)[0].frame["path"].tolist()
        contents: dict[str, str] = {}
        parts = on_every_process(trainer, lambda: content_hashes(rows, first=rank, step=several))
        for first, part in enumerate(parts):
            hashes = [digest.tobytes().hex() for digest in part]
            contents |= dict(zip(paths[first::several], hashes, strict=True))
        files = [rows.resolve(path) for path in paths]
        states = on_first_process(trainer, lambda: self._begin(files, contents))
        for name, state in states.items():
            self.reconstructors[name].load_state_dict(state)
        self.plan = Plan(
            self.out,
            rows,
            self.settings,
            contents,
            families={name: each.family or name for name, each in self.reconstructors.items()},
            recipes={ORIGINAL: self.settings.recipe(None)}
            | {name: self.settings.recipe(r.recipe()) for name, r in self.reconstructors.items()},
        )
        looks = on_every_process(
            trainer, lambda: {path: self.plan.missing(path) for path in paths[rank::several]}
        )
        found = {path: look for part in looks for path, look in part.items()}
        self._refuse(
            [self.plan.file(each, path) for path, (_, others) in found.items() for each in others]
        )
        self._work = [Work(path, tuple(found[path][0])) for path in paths if found[path][0]]
        for folder in self.plan.recipes:
            self.pending[folder] = sum(folder in work.folders for work in self._work)
        if self._work:
            on_first_process(trainer, self.plan.begin)

    def predict_dataloader(self) -> DataLoader[Photograph] | list[Photograph]:
        """Load this process's photographs; over all processes, each once."""
        if self.trainer is None:
            return []
        work = self._work[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(
            PhotographDataset(self.plan, self.settings, self.data, work),
            batch_size=None,  # of any size, so each goes alone
            num_workers=self.data.num_workers,
            worker_init_fn=end_worker_with_parent,
        )

    def on_exception(self, exception: BaseException) -> None:
        """Name all unreadable images where one was met; Lightning tells."""
        self.data.on_exception(exception)

    def on_after_batch_transfer(self, batch: Photograph, dataloader_idx: int) -> Photograph:
        """Note a damaged photograph."""
        self.data.note_damage([batch["work"].path], [batch["damage"]])
        return batch

    def teardown(self, stage: str) -> None:
        """Say how many images were read in spite of damage, and list them; all processes do."""
        self.data.say_damage(self.trainer)

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.close()

    def _begin(
        self, photographs: Sequence[Path], contents: Mapping[str, str]
    ) -> dict[str, dict[str, Tensor]]:
        """Lock the folder, and train what is to be trained, for the first process.

        Args:
            photographs: The files of the photographs.
            contents: Their hashes, by path.

        Returns:
            By name, the weights of what was trained, now or before.
        """
        self._lock.enter_context(locked(self.out))
        states = {}
        for name, each in self.reconstructors.items():
            if isinstance(each, TrainedReconstructor) and each.weights is None:
                made_of = key_of({"training": each.lessons(), "photographs": dict(contents)})
                file = self.out / f"{name}.safetensors"
                if (note := note_of_weights(file)) != made_of:
                    if note is not None:
                        self._refuse([file])
                    each.fit(photographs, name)
                    write_weights(each, file, made_of)
                states[name] = read_state(file)
        return states

    def _refuse(self, others: Sequence[Path]) -> None:
        """Refuse to replace what was made otherwise, unless that was asked for."""
        if others and not self.overwrite:
            raise DataError(
                f"{self.out}: holds other files, or copies by other reconstructors or settings, or "
                f"of other photographs: {named([str(file) for file in others])}; name another "
                "folder with --out, or replace them with --overwrite"
            )


class ReconstructionTask(pl.LightningModule):
    """Draw photographs again, and write what is drawn; there is nothing to train.

    Args:
        images: What is to be drawn.
    """

    def __init__(self, images: ReconstructionDataModule) -> None:
        super().__init__()
        self.networks = nn.ModuleList(images.reconstructors.values())  # to follow to a device
        self._images = images
        self._pool: ThreadPoolExecutor | None = None
        self._threads = torch.get_num_threads()
        self._under_way: deque[Future[None]] = deque()

    def on_predict_start(self) -> None:
        """Take the threads."""
        self._threads = torch.get_num_threads()
        self._passes = own_threads(self._threads)
        torch.set_num_threads(1)  # for new threads too
        self._pool = ThreadPoolExecutor(self._passes, thread_name_prefix="reconstruct")

    def predict_step(self, batch: Photograph, batch_idx: int) -> Work:
        """Start a photograph, wait for an earlier one where many are under way; say which it is."""
        if self._pool is None:
            raise RuntimeError("predict_step is only called by a Trainer")
        if self.device.type == "cpu":
            self._under_way.append(self._pool.submit(lambda: self._keep(batch, self._draw(batch))))
        else:
            self._under_way.append(self._pool.submit(self._keep, batch, self._draw(batch)))
        self._wait(_AHEAD * self._passes)
        return batch["work"]

    def on_predict_epoch_end(self) -> None:
        """Wait for the rest, until all of it is written."""
        self._wait(0)

    def close(self) -> None:
        """Give the threads back; what is under way ends, what waits is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def _wait(self, left: int) -> None:
        while len(self._under_way) > left:
            self._under_way.popleft().result()

    def _draw(self, photograph: Photograph) -> dict[str, Tensor]:
        """Give the copies of a photograph that are missing, on the CPU."""
        image, networks = photograph["image"], self._images.reconstructors
        return {
            folder: (image if folder == ORIGINAL else networks[folder](image)).cpu()
            for folder in photograph["work"].folders
        }

    def _keep(self, photograph: Photograph, drawn: Mapping[str, Tensor]) -> None:
        plan, path = self._images.plan, photograph["work"].path
        for folder, copy in drawn.items():
            if folder != ORIGINAL:
                copy = self._changed(copy, photograph, folder)
            write_copy(copy, plan.file(folder, path), plan.note(folder, path))

    def _changed(self, copy: Tensor, photograph: Photograph, name: str) -> Tensor:
        """Mix a copy with its photograph, and compress it as that was, where it is to be."""
        settings, path = self._images.settings, photograph["work"].path
        if settings.mixing is not None:
            draw = settings.mixing.draw(settings.seed, name, path, *copy.shape[-2:])
            copy = settings.mixing.mix(copy, photograph["image"].cpu(), draw)
        return copy if photograph["tables"] is None else recompressed(copy, photograph["tables"])
