"""The linear probe as a Lightning task."""

from torch import nn

from dfl.heads.modules.linear import LinearHead
from dfl.heads.tasks.head import HeadTask
from dfl.recipe import Recipe


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
