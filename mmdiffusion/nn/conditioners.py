"""Conditioners: what is known about a sample, as the denoiser reads it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmdiffusion.types import Condition


class LabelConditioner(nn.Module):
    """A class label as a vector, with a vector of its own for each way of not knowing it.

    The network must be told *why* a label is missing: `hidden` (it was aggregated into z_t, but is not shown) and
    `absent` (it is nowhere) are different distributions of z_t.

    Args:
        num_classes: Number of classes.
        width: Width of the vector.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width, self.context_width = width, None
        self.table = nn.Embedding(num_classes + 2, width)

    def forward(self, label: Int[Tensor, " b"]) -> Condition:
        """Labels shown to the network."""
        return Condition(vector=self.table(label))

    def hidden(self, batch_size: int) -> Condition:
        """Labels aggregated into z_t, not shown."""
        return self._constant(self.num_classes, batch_size)

    def null(self, batch_size: int) -> Condition:
        """Labels nowhere: neither aggregated nor shown."""
        return self._constant(self.num_classes + 1, batch_size)

    def mixed(
        self,
        label: Int[Tensor, " b"],
        is_shown: Bool[Tensor, " b"],
        is_absent: Bool[Tensor, " b"],
    ) -> Condition:
        """Per sample: shown where `is_shown`, absent where `is_absent`, hidden otherwise."""
        row = torch.where(is_shown, label, torch.where(is_absent, self.num_classes + 1, self.num_classes))
        return self(row)

    def _constant(self, row: int, batch_size: int) -> Condition:
        vector: Float[Tensor, "b d"] = self.table.weight[row].expand(batch_size, -1)
        return Condition(vector=vector)
