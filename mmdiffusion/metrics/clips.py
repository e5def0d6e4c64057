"""A metric made of a few figures for every clip."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmdiffusion.metrics.base import SampleMetric


class ClipMetric(SampleMetric):
    """A number made of three figures a clip: beats of one side, beats of the other, and how they agree.

    The figures are kept, 12 bytes a clip, so that no order, batch size or number of processes changes the value.

    Attributes:
        min_clips: Fewest clips that have a value.
    """

    min_clips: ClassVar[int] = 1
    higher_is_better: bool | None = True
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self._details: dict[str, str | int | float] = {}
        # flat and float32, as torchmetrics gathers a process without clips; counts are exact up to 16 million
        self.add_state("rows", [], dist_reduce_fx="cat")

    @abstractmethod
    def value(self, table: Float[Tensor, "b 3"]) -> Float[Tensor, ""]:
        """The value of the figures (b 3) of at least `min_clips` clips; the order of rows must not matter."""

    @abstractmethod
    def details(self, table: Float[Tensor, "b 3"]) -> dict[str, str | int | float]:
        """What the protocol says about the same figures, besides their number."""

    def protocol(self) -> dict[str, str | int | float]:
        """Number of clips behind the last value, and its details."""
        return {"num_samples": self.num_samples} | self._details

    def add(self, rows: list[tuple[int, int, int | float]]) -> None:
        """Keep the figures of some clips."""
        self.rows.append(torch.tensor(rows, dtype=torch.float32, device=self.device).flatten())

    def compute(self) -> Float[Tensor, ""]:
        """Value over all processes, a float64 scalar.

        Raises:
            ValueError: If there are fewer than `min_clips` clips altogether.
        """
        table = (dim_zero_cat(self.rows) if len(self.rows) else torch.zeros(0)).view(-1, 3).double()
        self.num_samples = len(table)
        if self.num_samples < self.min_clips:
            raise ValueError(
                f"{self.name()}: found {self.num_samples} clips, expected at least {self.min_clips}; draw more samples"
            )
        self._details = self.details(table)
        return self.value(table)

    def reset(self) -> None:
        """Forget every clip."""
        super().reset()
        self._details = {}


def mean_over_clips(scores: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean in float64, the same to the last bit in any order of the clips; b is at least 1."""
    return scores.double().sort().values.mean()


def spread_over_clips(scores: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Sample standard deviation (b - 1) in float64, the same in any order of the clips; b is at least 2.

    CSD of `beat_precision`, HSD of `beat_hit` (Yu et al. 2023, arXiv:2305.01319; OpenGVLab/LORIS, beats_scores.py).
    """
    return scores.double().sort().values.std(correction=1)
