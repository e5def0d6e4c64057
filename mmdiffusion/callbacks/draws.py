"""Drawing many samples from a method: batch by batch, shared among processes, with a progress bar."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from lightning import LightningModule, Trainer

from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.base import Method
from mmdiffusion.types import Batch, LabelSpec


@dataclass(frozen=True)
class Draw:
    """One kind of sample.

    Args:
        given: Names of the modalities taken from the data.
        drawn: Names of the modalities to draw; `None` draws all that the method models and are not given.
    """

    given: list[str]
    drawn: list[str] | None = None


def check_draws(draws: dict[str, Draw], method: LightningModule) -> None:
    """Check kinds of samples against what the method can do, before any work starts.

    Args:
        draws: Kinds of samples by name.
        method: Is to draw them.

    Raises:
        ValueError: naming the kind, and what the method cannot be given or cannot draw, or was not trained for.
    """
    assert isinstance(method, Method)
    for name, draw in draws.items():
        try:
            method.check_request(draw.given, draw.drawn)
        except ValueError as error:
            raise ValueError(f"draws.{name}: {error}") from error


@dataclass(frozen=True)
class Conditions:
    """Values of the given modalities for samples 0, 1, ..., read as they are asked for.

    Labels alone come in turn, otherwise the split's rows in turn.

    Args:
        data: The data module.
        given: Names of the modalities.
        split: Where they come from.
        by_row: Take labels alone from the rows as well: samples are compared with what belongs to these.
    """

    data: DataModule
    given: Sequence[str]
    split: Split
    by_row: bool = False

    def of(self, indices: Sequence[int]) -> Batch:
        """Conditions of some samples.

        Args:
            indices: Their numbers.
        """
        label = self.data.spec.get("label")
        if list(self.given) == ["label"] and isinstance(label, LabelSpec) and not self.by_row:
            return {"label": torch.tensor(indices) % label.num_classes}
        return self.data.rows(self.split, indices, self.given) if self.given else {}


def num_within(num_samples: int, limit: int | float, batch_size: int) -> int:
    """How many of some samples the trainer's limit leaves, such as `limit_test_batches`.

    Args:
        num_samples: How many there are without it.
        limit: A number of batches where it is an integer, else a share of the samples, in [0, 1].
        batch_size: Samples of a batch.
    """
    return min(num_samples, limit * batch_size) if isinstance(limit, int) else math.ceil(limit * num_samples)


def draw_samples(
    trainer: Trainer,
    method: Method,
    draw: Draw,
    given: Conditions,
    indices: Sequence[int],
    batch_size: int,
    description: str,
) -> Iterator[Batch]:
    """Draw the samples of these indices.

    Sample i depends on i alone: processes may share the indices out as they like.

    Args:
        trainer: Its precision is used, and its first process shows progress.
        method: Draws.
        draw: Kind of sample.
        given: Values of the given modalities.
        indices: Samples to draw.
        batch_size: Samples at a time.
        description: Name of the progress bar.
    """
    bar = trainer.progress_bar_callback
    counting = bar.counting(description, len(indices)) if isinstance(bar, StepProgress) else nullcontext(lambda _: None)
    with counting as advance:
        for start in range(0, len(indices), batch_size):
            seeds = list(indices[start : start + batch_size])
            with trainer.precision_plugin.forward_context():
                samples = method.sample(given.of(seeds), seeds=seeds, drawn=draw.drawn)
            advance(len(seeds))
            yield samples
