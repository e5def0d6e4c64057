"""Evaluate: draws samples after a test run, measures them and the real data, and writes one table."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from torch import Tensor

from mmdiffusion.callbacks.draws import Draw, check_draws, conditions, draw_samples, take
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch

Figure = dict[str, Any]
"""A value with its number of samples and protocol."""


REFERENCE = "reference_"
"""Before the name of a modality: the real data that belong to a sample's condition."""
FILES = {"val": "metrics-val.json", "test": "metrics.json"}
COLUMNS = ("classify", "real", "shuffled")
"""Columns of the table beside those of the draws."""


class Evaluate(Callback):
    """Measures a method: samples of every kind, classification, and the real data beside them.

    `test` measures on the test split and writes `metrics.json`; `validate` does the same on the validation split, to
    choose settings by, and writes `metrics-val.json`.

    Columns of the table: one per draw; `real`, the upper bound (real test data, or real training data where test data
    are the reference); and `shuffled`, the control (samples of a draw beside the conditions, and the real data,
    of other samples). Judges and
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
        check_draws(self.draws, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure on the validation split, where validation is all that was asked for."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure on the test split."""
        self._evaluate(trainer, pl_module, "test")

    def _evaluate(self, trainer: Trainer, method: LightningModule, split: Split) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(method, Method)
        assert isinstance(data, DataModule)
        start = time.perf_counter()
        self._figures = {}
        made = method.protocol() | {"checkpoint": str(trainer.ckpt_path), "split": split}
        self._prepare(trainer, data, split)
        self._measure_real(trainer, data, split)
        self._measure_classification(trainer, method, data, split, made)
        for name in self.draws:
            self._measure_draw(trainer, method, data, name, split, made)
        if trainer.is_global_zero:
            self._report(Path(trainer.default_root_dir), split, time.perf_counter() - start, trainer)

    # Measuring -------------------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, data: DataModule, split: Split) -> None:
        train, device = data.columns("train"), trainer.strategy.root_device
        for metric in self.metrics:
            metric.to("cpu" if device.type == "mps" else device)  # sums are float64, which MPS lacks
            metric.reset()
            metric.describe(data.spec)
            fit(metric, train)
            if metric.uses_reference:
                for batch in self._real(trainer, data, split, range(data.num_rows(split))):
                    metric.update(*inputs(metric, batch), real=True)

    def _measure_real(self, trainer: Trainer, data: DataModule, split: Split) -> None:
        """Real data as samples: training data against references, data of the split for everything else."""
        balanced = in_turn(data.columns("train"))[: self.num_samples].tolist()
        entries = {*data.spec, *(REFERENCE + name for name in data.spec), "index"}
        trained = list(self._real(trainer, data, "train", balanced)) if self._with_reference(True) else []
        self._measure("real", trained, entries, self._with_reference(True), {})
        tested = list(self._real(trainer, data, split, range(data.num_rows(split))))
        self._measure("real", tested, entries, self._with_reference(False), {})

    def _real(self, trainer: Trainer, data: DataModule, split: Split, rows: Sequence[int]) -> Iterator[Batch]:
        """This process's share of real data, each its own reference."""
        share = rows[trainer.global_rank :: trainer.world_size]
        for start in range(0, len(share), self.batch_size):
            batch = data.rows(split, share[start : start + self.batch_size])
            yield batch | {REFERENCE + name: values for name, values in batch.items()}

    def _with_reference(self, uses_reference: bool) -> list[SampleMetric]:
        return [metric for metric in self.metrics if metric.uses_reference == uses_reference]

    def _measure_classification(
        self,
        trainer: Trainer,
        method: Method,
        data: DataModule,
        split: Split,
        made: Figure,
    ) -> None:
        """The method as a classifier, where that is measured; it is handed images and no labels."""
        metrics = [metric for metric in self.metrics if "prediction" in metric.inputs]
        if not metrics:
            return
        classify: Callable[[Batch], Tensor] | None = getattr(method, "classify", None)
        if classify is None:
            raise ValueError(f"metrics has {metrics[0].name()}: {type(method).__name__} does not classify")
        batches: list[Batch] = []
        for batch in self._real(trainer, data, split, range(data.num_rows(split))):
            image = batch["image"]
            assert isinstance(image, Tensor)
            with trainer.precision_plugin.forward_context():
                probabilities = classify({"image": image.to(method.device), "index": batch["index"]})
            batches.append({"prediction": probabilities.argmax(1).cpu(), "label": batch["label"]})
        self._measure("classify", batches, ("prediction", "label"), metrics, made)

    def _measure_draw(
        self,
        trainer: Trainer,
        method: Method,
        data: DataModule,
        name: str,
        split: Split,
        made: Figure,
    ) -> None:
        """Samples of one kind; and their control, the same samples beside what belongs to others."""
        draw = self.draws[name]
        given = conditions(data, draw, self.num_samples, split)
        share = range(trainer.global_rank, self.num_samples, trainer.world_size)
        batches = list(draw_samples(trainer, method, draw, given, share, self.batch_size, f"drawing {name}"))
        drawn = method.drawable if draw.drawn is None else draw.drawn
        made = made | {"given": draw.given, "drawn": [entry for entry in drawn if entry not in draw.given]}

        needed = {entry for metric in self.metrics for entry in metric.inputs if entry.startswith(REFERENCE)}
        beside = {*draw.given, *(needed if draw.given else ())}
        makes = method.makes if draw.drawn is None else draw.drawn
        entries, order = {*makes, *beside, "index"}, torch.arange(self.num_samples)
        self._measure(
            name, [b | partners(b, given, needed, data, split, order) for b in batches], entries, self.metrics, made
        )
        if draw.given:
            order = torch.randperm(self.num_samples, generator=torch.Generator().manual_seed(0))
            metrics = [metric for metric in self.metrics if beside & set(metric.inputs)]
            control = [b | partners(b, given, needed, data, split, order) for b in batches]
            self._measure(self._control(name), control, entries, metrics, made)

    def _control(self, name: str) -> str:
        """Column of a draw's control."""
        is_only = sum(bool(draw.given) for draw in self.draws.values()) == 1
        return "shuffled" if is_only else f"{name}, shuffled"

    def _measure(
        self,
        column: str,
        batches: Iterable[Batch],
        entries: Iterable[str],
        metrics: list[SampleMetric],
        made: Figure,
    ) -> None:
        """Compute the metrics that these batches can feed.

        Args:
            column: Column of the table.
            batches: This process's share, which may be empty.
            entries: Entries of every batch; the same on all processes, so that all compute, or none.
            metrics: Which metrics to consider.
            made: How the samples were made, for the record.
        """
        for metric in metrics:
            if not set(metric.inputs) <= set(entries):
                continue
            metric.reset_samples()
            for batch in batches:
                metric.update(*inputs(metric, batch))
            figure = {"value": float(metric.compute())} | metric.protocol() | ({"made": made} if made else {})
            self._figures.setdefault(metric.name(), {})[column] = figure

    # Reporting -------------------------------------------------------------------------------------------------

    def _report(self, run: Path, split: Split, seconds: float, trainer: Trainer) -> None:
        order = [*self.draws, "classify", "real", *map(self._control, self.draws)]
        columns = [c for c in dict.fromkeys(order) if any(c in f for f in self._figures.values())]
        headers = [Column(c, no_wrap=True) for c in ("metric", *columns)]
        title = f"{run}, {split} split: {self.num_samples} samples of each kind, {seconds:.0f} s"
        table = Table(*headers, title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name, figures in self._figures.items():
            table.add_row(escape(name), *(f"{figures[c]['value']:.4g}" if c in figures else "" for c in columns))
        console = Console()  # figures that are cut off would be of no use: a narrow terminal may break the lines
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"{split}/{m}/{c}": f["value"] for m, fs in self._figures.items() for c, f in fs.items()}
            )
        run.mkdir(parents=True, exist_ok=True)
        (run / FILES[split]).write_text(json.dumps(self._figures, indent=2) + "\n")


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


def partners(
    batch: Batch,
    given: Batch,
    needed: Iterable[str],
    data: DataModule,
    split: Split,
    order: Tensor,
) -> Batch:
    """What samples are measured beside: their conditions, and the real data that belong to these.

    Args:
        batch: The samples.
        given: Conditions, by sample index.
        needed: Entries that hold real data, `reference_` before the modality's name.
        data: The data module.
        split: Where conditions and real data come from.
        order: Sample whose partners each sample gets: its own, or for the control another's.
    """
    index = batch["index"]
    assert isinstance(index, Tensor)
    rows = order[index.cpu()]
    real = data.rows(split, rows.tolist()) if needed and given else {}
    references = {entry: real[entry.removeprefix(REFERENCE)] for entry in needed if given}
    return {name: take(values, rows) for name, values in given.items()} | references


def in_turn(columns: Batch) -> Tensor:
    """Rows in their order, but one of each label in turn, so that the first few are balanced."""
    label = columns.get("label")
    if not isinstance(label, Tensor):
        return torch.arange(len(columns["index"]))
    by_label = label.argsort(stable=True)
    first = torch.searchsorted(label[by_label], label[by_label])
    turn = torch.empty_like(by_label)
    turn[by_label] = torch.arange(len(label)) - first
    return turn.argsort(stable=True)
