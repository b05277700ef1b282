"""A fitted sklearn head as a Lightning task: the way from pixels to its scores."""

import torch
from torch import Tensor, nn

from dfl.backbones import Backbone
from dfl.heads.storage.checkpoint import check_spec
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.tasks.head import HeadTask
from dfl.heads.tasks.scoring import Step
from dfl.recipe import Recipe


class SklearnHeadTask(HeadTask):
    """Score with an sklearn head; it is fitted by `dfl heads`, not here.

    Args:
        head: The fitted head.
        backbones: The backbones whose features it takes.

    Raises:
        CheckpointError: If they are not those that it was fitted on.
    """

    def __init__(self, head: SklearnHead, backbones: dict[str, Backbone]) -> None:
        super().__init__(backbones)
        self.head = head
        self.threshold = head.threshold
        if self.spec is not None:
            check_spec(head.spec, self.spec, saved_by="the head", present_in="this model")

    def build_model(self, in_features: int) -> nn.Module:
        """There is nothing for torch to train."""
        return nn.Identity()

    def architecture(self) -> Recipe:
        """An sklearn head keeps its settings itself."""
        return {}

    def head_step(self, features: Tensor, label: Tensor | None) -> Step:
        """Score on the CPU, in float64."""
        score = torch.from_numpy(self.head.score(features.float().cpu().numpy()))
        return {"loss": None, "logit": score, "logs": {}}
