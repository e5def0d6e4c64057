"""One column of the table: metrics that are fed as batches come, so that no more than one batch is in memory."""

import copy
from collections.abc import Iterable
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mmdiffusion.callbacks.table import Figure, Figures
from mmdiffusion.methods.checks import check_entries
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch


class Column:
    """The metrics that samples of one kind can feed; each column has states of its own.

    Args:
        name: Name of the column.
        metrics: Which metrics to consider.
        entries: Entries of every batch; the same on all processes, so that all compute, or none.
        num_samples: How many come, on all processes together; a metric that needs more is left out, which is said.
        made: How the samples were made, for the record.
    """

    def __init__(
        self,
        name: str,
        metrics: Iterable[SampleMetric],
        entries: Iterable[str],
        num_samples: int,
        made: Figure,
    ) -> None:
        kept = set(entries)
        self.name, self.made = name, made
        self.metrics: list[SampleMetric] = []
        for metric in metrics:
            if not set(metric.inputs) <= kept:
                continue
            if metric.min_samples <= num_samples:
                self.metrics.append(fresh(metric))
            elif num_samples:
                rank_zero_warn(
                    f"{metric.name()} of {name} is left out: "
                    f"it needs {metric.min_samples} samples, here are {num_samples}"
                )

    @property
    def read(self) -> set[str]:
        """Entries of a batch that a metric reads."""
        return {entry for metric in self.metrics for entry in metric.inputs}

    def update(self, batch: Batch) -> None:
        """Feed a batch to the metrics.

        Args:
            batch: Samples, and what stands beside them.
        """
        for metric in self.metrics:
            metric.update(*inputs(metric, batch))

    def write(self, figures: Figures) -> None:
        """Compute, together with the other processes, and add to the table.

        Args:
            figures: The table, by metric and column.
        """
        for metric in self.metrics:
            figure = {"value": float(metric.compute())} | metric.protocol()
            figures.setdefault(metric.name(), {})[self.name] = figure | ({"made": self.made} if self.made else {})


def fresh(metric: SampleMetric) -> SampleMetric:
    """A metric with no samples, that shares with another what it learned and its references.

    Args:
        metric: The other, which keeps its samples.
    """
    twin = copy.copy(metric)
    for state in metric._defaults:
        values = getattr(metric, state)
        if isinstance(values, list):  # which a reset would empty in place
            setattr(twin, state, list(values))
    twin.reset_samples()
    return twin


def inputs(metric: SampleMetric, batch: Batch) -> list[Any]:
    """The entries of a batch that a metric reads, on its device.

    Raises:
        ValueError: naming an entry that the batch does not have.
    """
    check_entries(batch, metric.inputs, metric.name())
    values = [batch[name] for name in metric.inputs]
    return [value.to(metric.device) if isinstance(value, Tensor) else value for value in values]
