"""A task and data small enough to run a whole Trainer in a test."""

from types import SimpleNamespace

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from tests.report.score_frames import score_frame


class TinyTask(LightningModule):
    """Learns one number, and keeps the scores it is given."""

    def __init__(self, scores=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.given = scores
        if scores is not None:
            self.scores = scores

    def training_step(self, batch, batch_idx):
        loss = (self.weight - batch["label"].float().mean()) ** 2
        self.log("train/loss", loss.mean(), batch_size=2)
        return loss.mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.weight.mean(), batch_size=2)

    def test_step(self, batch, batch_idx):
        pass

    def predict_step(self, batch, batch_idx):
        return batch["label"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class TinyData(LightningDataModule):
    """Eight labels in batches of two; files are found below ``root``."""

    def __init__(self, root=None):
        super().__init__()
        if root is not None:
            self.manifest = SimpleNamespace(resolve=lambda path: root / path)

    def _loader(self):
        return DataLoader([{"label": torch.tensor(i % 2)} for i in range(8)], batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader


def tiny_trainer(root, **arguments):
    """A trainer on the CPU without the parts that a test does not look at."""
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
    return Trainer(
        accelerator="cpu",
        default_root_dir=root,
        max_epochs=1,
        log_every_n_steps=1,
        enable_model_summary=False,
        **quiet | arguments,
    )


def six_scores():
    """Six images: a and f are wrong, f more so; u has no label."""
    return score_frame(
        ("a.png", "p", "real", 0, 0.5),
        ("b.png", "p", "real", 0, -2.0),
        ("c.png", "q", "real", 0, -3.0),
        ("d.png", "p", "gan", 1, 4.0),
        ("e.png", "q", "ldm", 1, 1.0),
        ("f.png", "q", "ldm", 1, -1.5),
        ("u.png", "q", "unknown", -1, 9.0),
    )
