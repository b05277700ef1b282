"""The linear head."""

from torch import Tensor, nn

from dfl.heads.modules.standardise import Standardise


class LinearHead(nn.Module):
    """One linear layer on standardised features: logistic regression, trained by gradient descent.

    Args:
        in_features: Number of features D.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.normalise = Standardise(in_features)
        # the loss is convex: starting from zero makes the result independent of the seed, and no
        # random number is drawn
        self.linear = nn.utils.skip_init(nn.Linear, in_features, 1)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Score features.

        Args:
            features: Shape ``(B, D)``.

        Returns:
            Logits, shape ``(B,)``, float32; higher = fake.
        """
        logit: Tensor = self.linear(self.normalise(features))
        return logit.squeeze(1)
