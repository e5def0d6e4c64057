"""Conditioners: what is known about a sample, as the denoiser reads it."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmdiffusion.types import Batch, Condition, DataSpec, LabelSpec


class Conditioner(nn.Module, ABC):
    """Some modalities of a batch as the denoiser reads them.

    Args:
        reads: Names of the modalities, in the order in which `forward` takes them.
        width: Width of the vector; `None` when there is none.
        context_width: Width of the context tokens; `None` when there are none.
    """

    def __init__(self, reads: tuple[str, ...], width: int | None, context_width: int | None) -> None:
        super().__init__()
        self.reads, self.width, self.context_width = reads, width, context_width

    @abstractmethod
    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """The condition.

        Args:
            known: The modalities that it reads, and perhaps others.
            is_dropped: Samples whose condition is to look as if nothing were known; `None` for none.
        """

    @abstractmethod
    def null(self, batch_size: int) -> Condition:
        """The condition of samples of which nothing is known."""


class LabelConditioner(Conditioner):
    """A class label as a vector, with a vector of its own for not knowing it.

    Args:
        spec: The data, which has a label.
        width: Width of the vector.
    """

    def __init__(self, spec: DataSpec, width: int = 64) -> None:
        super().__init__(("label",), width, None)
        label = spec.get("label")
        if not isinstance(label, LabelSpec):
            raise ValueError(f"spec has {', '.join(spec)}: LabelConditioner expects data with a label")
        self.num_classes = label.num_classes
        self.table = nn.Embedding(self.num_classes + 1, width)

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """Labels shown to the network; see `Conditioner`."""
        label = known["label"]
        assert isinstance(label, Tensor)
        row = label if is_dropped is None else torch.where(is_dropped, self.num_classes, label)
        return Condition(vector=self.table(row.to(self.table.weight.device)))

    def null(self, batch_size: int) -> Condition:
        """Labels that are not known."""
        vector: Float[Tensor, "b d"] = self.table.weight[self.num_classes].expand(batch_size, -1)
        return Condition(vector=vector)
