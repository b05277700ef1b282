"""The linear probe as a Lightning task."""

from torch import Tensor, nn

from dfl.heads.modules.linear import LinearHead
from dfl.heads.modules.losses import cross_entropy
from dfl.heads.tasks.head import HeadTask, Step
from dfl.recipe import Recipe

__all__ = ["LinearProbeTask"]


class LinearProbeTask(HeadTask):
    """Train one linear layer on frozen features by binary cross-entropy (Ojha et al., CVPR 2023).

    Takes the arguments of `HeadTask`.
    """

    def build_model(self, in_features: int) -> nn.Module:
        """Build the linear head."""
        return LinearHead(in_features)

    def architecture(self) -> Recipe:
        """A linear head has no arguments of its own."""
        return {}

    def head_step(self, features: Tensor, label: Tensor | None) -> Step:
        """Classify, and compute the cross-entropy where there are labels."""
        if self.model is None:
            raise RuntimeError("configure_model comes first")
        logit = self.model(features)
        loss = None if label is None else cross_entropy(logit, label)
        return {"loss": loss, "logit": logit, "logs": {}}
