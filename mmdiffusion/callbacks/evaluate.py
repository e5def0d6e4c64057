"""Evaluate: draws samples after a test run, measures them and the real data, and writes one table."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from torch import Tensor

from mmdiffusion.callbacks.draws import Draw, check_draws, conditions, draw_samples, take
from mmdiffusion.data.base import DataModule
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch

Figure = dict[str, Any]
"""A value with its number of samples and protocol."""


COLUMNS = ("classify", "real", "shuffled")
"""Columns of the table beside those of the draws."""


class Evaluate(Callback):
    """Measures a method in `test`: samples of every kind, classification, and the real data beside them.

    Columns of the table: one per draw; `real`, the upper bound (real test data, or real training data where test data
    are the reference); and `shuffled`, the control (labels of the conditional draw put in another order). Judges and
    feature extractors are fitted on the real training split only.

    Args:
        metrics: What is measured. A metric is used for each kind of samples that has the entries it reads.
        draws: Kinds of samples by name: what is given, the rest is drawn.
        num_samples: Samples of each kind.
        batch_size: Samples drawn at a time.
    """

    def __init__(
        self,
        metrics: list[SampleMetric],
        draws: dict[str, Draw],
        num_samples: int = 1000,
        batch_size: int = 250,
    ) -> None:
        if num_samples < 1 or batch_size < 1:
            raise ValueError(f"num_samples is {num_samples}, batch_size is {batch_size}: expected at least 1 of each")
        names = [metric.name() for metric in metrics]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"metrics has {name} {names.count(name)} times: expected each name once")
        for column in COLUMNS:
            if column in draws:
                raise ValueError(f"draws has the name {column}: expected another, it is a column of its own")
        self.metrics = metrics
        self.draws = draws
        self.num_samples = num_samples
        self.batch_size = batch_size
        self._figures: dict[str, dict[str, Figure]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what is to be drawn, before a training rather than after it."""
        check_draws(self.draws, trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure everything, then print the table and write `metrics.json` into the run folder."""
        method, data = pl_module, trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(method, Method)
        assert isinstance(data, DataModule)
        start = time.perf_counter()
        self._figures = {}
        self._prepare(trainer, data)
        self._measure_real(trainer, data)
        self._measure_classification(trainer, method, data)
        for name, draw in self.draws.items():
            given = conditions(data, draw, self.num_samples)
            share = range(trainer.global_rank, self.num_samples, trainer.world_size)
            samples = list(draw_samples(trainer, method, draw, given, share, self.batch_size, f"drawing {name}"))
            self._measure(name, lambda batches=samples: batches)
            if "label" in draw.given:
                control = [batch | {"label": shuffled(given["label"], batch["index"])} for batch in samples]
                self._measure("shuffled", lambda batches=control: batches, only="label")
        if trainer.is_global_zero:
            self._report(Path(trainer.default_root_dir), time.perf_counter() - start, trainer)

    # Measuring -------------------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, data: DataModule) -> None:
        train, test = data.columns("train"), data.columns("test")
        for metric in self.metrics:
            metric.to(trainer.strategy.root_device)
            metric.reset()
            fit(metric, train)
            if metric.uses_reference:
                for batch in self._share(trainer, test):
                    metric.update(*inputs(metric, batch), real=True)

    def _measure_real(self, trainer: Trainer, data: DataModule) -> None:
        """Real data as samples: training data against the test references, test data for everything else."""
        train = {name: values[: self.num_samples] for name, values in data.columns("train").items()}
        self._measure("real", lambda: self._share(trainer, train), only_reference=True)
        self._measure("real", lambda: self._share(trainer, data.columns("test")), only_reference=False)

    def _measure_classification(self, trainer: Trainer, method: Method, data: DataModule) -> None:
        """The method as a classifier of the test split, where it is one; it is handed images and no labels."""
        classify: Callable[[Batch], Tensor] | None = getattr(method, "classify", None)
        if classify is None:
            return
        predicted = []
        for batch in self._share(trainer, data.columns("test")):
            image, label = batch["image"], batch["label"]
            assert isinstance(image, Tensor)
            assert isinstance(label, Tensor)
            with trainer.precision_plugin.forward_context():
                probabilities = classify({"image": image.to(method.device), "index": batch["index"]})
            predicted.append({"prediction": probabilities.argmax(1).cpu(), "label": label})
        self._measure("classify", lambda: predicted)

    def _measure(
        self,
        column: str,
        batches: Callable[[], Iterable[Batch]],
        only: str | None = None,
        only_reference: bool | None = None,
    ) -> None:
        """Compute every metric that these batches can feed.

        Args:
            column: Column of the table.
            batches: Makes the batches afresh for each metric.
            only: Leave out metrics that do not read this entry.
            only_reference: Leave out metrics that do not use references (or, if false, those that do).
        """
        for metric in self.metrics:
            if only is not None and only not in metric.inputs:
                continue
            if only_reference is not None and metric.uses_reference != only_reference:
                continue
            metric.reset_samples()
            for batch in batches():
                if not set(metric.inputs) <= set(batch):
                    break
                metric.update(*inputs(metric, batch))
            else:
                figure = {"value": float(metric.compute())} | metric.protocol()
                self._figures.setdefault(metric.name(), {})[column] = figure

    def _share(self, trainer: Trainer, columns: Batch) -> list[Batch]:
        """This process's rows of a split, in batches."""
        size = len(columns["index"])
        rows = range(trainer.global_rank, size, trainer.world_size)
        chunks = [list(rows[i : i + self.batch_size]) for i in range(0, len(rows), self.batch_size)]
        return [
            {k: v[torch.tensor(chunk)] if isinstance(v, Tensor) else [v[i] for i in chunk] for k, v in columns.items()}
            for chunk in chunks
        ]

    # Reporting -------------------------------------------------------------------------------------------------

    def _report(self, run: Path, seconds: float, trainer: Trainer) -> None:
        columns = [c for c in [*self.draws, *COLUMNS] if any(c in f for f in self._figures.values())]
        headers = [Column(c, no_wrap=True) for c in ("metric", *columns)]
        title = f"{run}: {self.num_samples} samples of each kind, {seconds:.0f} s"
        table = Table(*headers, title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name, figures in self._figures.items():
            table.add_row(escape(name), *(f"{figures[c]['value']:.4g}" if c in figures else "" for c in columns))
        console = Console()  # figures that are cut off would be of no use: a narrow terminal may break the lines
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
        for logger in trainer.loggers:
            logger.log_metrics({f"test/{m}/{c}": f["value"] for m, fs in self._figures.items() for c, f in fs.items()})
        run.mkdir(parents=True, exist_ok=True)
        (run / "metrics.json").write_text(json.dumps(self._figures, indent=2) + "\n")


def inputs(metric: SampleMetric, batch: Batch) -> list[Any]:
    """The entries of a batch that a metric reads, on its device."""
    values = [batch[name] for name in metric.inputs]
    return [value.to(metric.device) if isinstance(value, Tensor) else value for value in values]


def fit(metric: SampleMetric, train: Batch) -> None:
    """Hand a metric the entries of the training split that it learns from, if it learns.

    Raises:
        ValueError: If the training split does not have them.
    """
    if not metric.fit_inputs:
        return
    tensors = [name for name, values in train.items() if isinstance(values, Tensor)]
    for name in metric.fit_inputs:
        if name not in tensors:
            raise ValueError(
                f"metrics: {metric.name()} is fitted on {name}, expected a tensor of the training split, which has "
                f"{', '.join(tensors)}"
            )
    metric.fit(*(train[name] for name in metric.fit_inputs))  # pyright: ignore[reportArgumentType] - tensors, as checked


def shuffled(labels: Tensor | list[str], index: Tensor | list[str]) -> Tensor | list[str]:
    """Labels of these samples after all given labels have been put in another order, the same at every call."""
    assert isinstance(index, Tensor)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return take(labels, order[index.cpu()])
