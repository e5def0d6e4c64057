"""Evaluate: draws samples after a test run, measures them and the real data, and writes one table."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from mmdiffusion.callbacks import recognise
from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.callbacks.column import Column, inputs
from mmdiffusion.callbacks.controls import Control, check_controls, readers
from mmdiffusion.callbacks.draws import Conditions, Draw, check_draws, draw_samples, num_within
from mmdiffusion.callbacks.partners import REFERENCE, own_rows, partners, training_rows
from mmdiffusion.callbacks.references import check_statistics, has_reference, read_into
from mmdiffusion.callbacks.table import Figure, Figures, report
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.recognition import Recognition
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch

COLUMNS = ("classify", "real", "shuffled", *recognise.COLUMNS)
"""Columns of the table beside those of draws and controls."""


class Evaluate(CheckedCallback):
    """Measures a method: samples of every kind, classification, and the real data beside them.

    `test` measures on the test split and writes `metrics.json`; `validate` does the same on the validation split, to
    choose settings by, and writes `metrics-val.json`.

    Columns of the table: one per draw and per control; `real`, the upper bound (real test data, or real training data
    where test data are the reference); and `shuffled`, the lower one (samples of a draw beside the conditions, and the
    real data, of other samples). Judges and feature extractors are fitted on the real training split only.

    Args:
        metrics: What is measured. A metric is used for each kind of samples that has the entries it reads.
        draws: Kinds of samples by name: what is given, the rest is drawn.
        num_samples: Samples of each kind; fewer where `trainer.limit_test_batches` (of batches of the data's
            `eval_batch_size`) leaves fewer, and as many of the split's rows.
        batch_size: Samples drawn at a time.
        controls: Samples by name that no model draws, as bounds or baselines beside the draws; `None` for none. A
            metric is used for each control that makes an entry it reads.
    """

    def __init__(
        self,
        metrics: list[SampleMetric],
        draws: dict[str, Draw],
        num_samples: int = 1000,
        batch_size: int = 250,
        controls: dict[str, Control] | None = None,
    ) -> None:
        if num_samples < 1 or batch_size < 1:
            raise ValueError(f"num_samples is {num_samples}, batch_size is {batch_size}: expected at least 1 of each")
        names = [metric.name() for metric in metrics]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"metrics has {name} {names.count(name)} times: expected each name once")
        self.metrics, self.draws, self.controls = metrics, draws, controls or {}
        self._check_names()
        self.num_samples = num_samples
        self.batch_size = batch_size
        self._figures: Figures = {}
        self._num_drawn, self._rows = num_samples, range(0)

    def _check_names(self) -> None:
        taken = [*COLUMNS, *(f"{name}, shuffled" for name in self.draws)]
        for field, names in (("draws", self.draws), ("controls", self.controls)):
            for name in names:
                if name in taken:
                    raise ValueError(f"{field} has the name {name}: expected another, it is a column of its own")
                taken.append(name)

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check what is to be drawn, made and measured, before a training rather than after it; see `CheckedCallback`.

        Raises:
            ValueError: naming the draw, control or metric, and what method or data lack.
        """
        check_draws(self.draws, method)
        assert isinstance(method, Method)
        assert isinstance(data, DataModule)
        check_controls(self.controls, self.metrics, data, method.givable)
        recognise.check(self.metrics, method)
        for metric in self.metrics:
            if metric.min_samples > self.num_samples:
                raise ValueError(
                    f"num_samples is {self.num_samples}: {metric.name()} needs at least {metric.min_samples}; raise "
                    "it, or change the metric"
                )
            if metric.fit_inputs:
                fit_values(metric, data)
            if has_reference(metric):
                check_statistics(metric, data, is_fitted=False)

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
        limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
        self._num_drawn = num_within(self.num_samples, limit, data.eval_batch_size)
        self._rows = range(num_within(data.num_rows(split), limit, data.eval_batch_size))
        made = method.protocol() | {"checkpoint": str(trainer.ckpt_path), "split": split}
        self._prepare(trainer, data, split)
        self._measure_real(trainer, data, split)
        self._measure_classification(trainer, method, data, split, made)
        self._measure_recognition(trainer, method, data, split, made)
        for name in self.draws:
            self._measure_draw(trainer, method, data, name, split, made)
        for name in self.controls:
            self._measure_control(trainer, method, data, name, split)
        if trainer.is_global_zero:
            order = [
                *self.draws,
                "classify",
                *recognise.COLUMNS,
                *self.controls,
                "real",
                *map(self._shuffled, self.draws),
            ]
            subtitle = f"{self._num_drawn} samples of each kind, {time.perf_counter() - start:.0f} s"
            report(self._figures, order, trainer, split, subtitle)

    # Measuring -------------------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, data: DataModule, split: Split) -> None:
        device = trainer.strategy.root_device
        for metric in self.metrics:
            metric.to("cpu" if device.type == "mps" else device)  # sums are float64, which MPS lacks
            metric.reset()
            metric.describe(data.spec)
            fit(metric, data)
            if has_reference(metric):
                read_into(metric, data, is_first=trainer.is_global_zero)
            elif metric.uses_reference:
                for batch in self._real(trainer, data, split, self._rows):
                    metric.update(*inputs(metric, batch), real=True)

    def _measure_real(self, trainer: Trainer, data: DataModule, split: Split) -> None:
        """Real data as samples: training data against references of another split, data of the split for the rest."""
        entries = {*data.spec, *(REFERENCE + name for name in data.spec), "index"}
        unlike = [metric for metric in self.metrics if metric.uses_reference and not is_of_training(metric)]
        rows = training_rows(data, self._num_drawn) if unlike else []
        self._fill(Column("real", unlike, entries, len(rows), {}), self._real(trainer, data, "train", rows))
        others = [metric for metric in self.metrics if not metric.uses_reference or is_of_training(metric)]
        tested = self._real(trainer, data, split, self._rows)
        self._fill(Column("real", others, entries, len(self._rows), {}), tested)

    def _real(self, trainer: Trainer, data: DataModule, split: Split, rows: Sequence[int]) -> Iterator[Batch]:
        """This process's share of real data, each its own reference."""
        share = rows[trainer.global_rank :: trainer.world_size]
        for start in range(0, len(share), self.batch_size):
            batch = data.rows(split, share[start : start + self.batch_size])
            yield batch | {REFERENCE + name: values for name, values in batch.items()}

    def _measure_classification(
        self,
        trainer: Trainer,
        method: Method,
        data: DataModule,
        split: Split,
        made: Figure,
    ) -> None:
        """The method as a classifier, where that is measured; it is handed images and no labels."""
        column = Column("classify", self.metrics, ("prediction", "label"), len(self._rows), made)
        if not column.metrics:
            return
        classify: Callable[[Batch], Tensor] = method.classify  # pyright: ignore[reportAssignmentType] - checked before
        for batch in self._real(trainer, data, split, self._rows):
            image = batch["image"]
            assert isinstance(image, Tensor)
            with trainer.precision_plugin.forward_context():
                probabilities = classify({"image": image.to(method.device), "index": batch["index"]})
            column.update({"prediction": probabilities.argmax(1).cpu(), "label": batch["label"]})
        column.write(self._figures)

    def _measure_recognition(
        self,
        trainer: Trainer,
        method: Method,
        data: DataModule,
        split: Split,
        made: Figure,
    ) -> None:
        """Embeddings of the split's images, and of images that should tell nothing."""
        metrics = recognise.readers(self.metrics)
        if not metrics:
            return
        assert isinstance(method, Recognition), "checked before"
        for metric in metrics:
            metric.read(method.encode_text)
        texts = {"text_embedding"} if "caption" in data.spec else set()
        for name in recognise.COLUMNS:
            real = self._real(trainer, data, split, self._rows)
            batches = recognise.embedded(method, real, name, data, split, trainer.precision_plugin.forward_context)
            entries = {*data.spec, "index", "image_embedding", *texts}
            self._fill(Column(name, metrics, entries, len(self._rows), made), batches)

    def _measure_draw(
        self,
        trainer: Trainer,
        method: Method,
        data: DataModule,
        name: str,
        split: Split,
        made: Figure,
    ) -> None:
        """Samples of one kind; and shuffled, the same samples beside what belongs to others."""
        draw = self.draws[name]
        needed = {entry for metric in self.metrics for entry in metric.inputs if entry.startswith(REFERENCE)}
        given = Conditions(data, draw.given, split, by_row=bool(needed))
        drawn = method.drawable if draw.drawn is None else draw.drawn
        made = made | {"given": draw.given, "drawn": [entry for entry in drawn if entry not in draw.given]}

        beside = {*draw.given, *(needed if draw.given else ())}
        entries = {*(method.makes if draw.drawn is None else draw.drawn), *beside, "index"}
        metrics = [metric for metric in self.metrics if metric.inputs[0] not in draw.given]  # which is not to be judged
        own = Column(name, metrics, entries, self._num_drawn, made)
        paired = [metric for metric in metrics if beside & set(metric.inputs)] if draw.given else []
        shuffled = Column(self._shuffled(name), paired, entries, self._num_drawn, made)
        order = torch.arange(self._num_drawn)
        others = torch.randperm(self._num_drawn, generator=torch.Generator().manual_seed(0))

        share = range(trainer.global_rank, self._num_drawn, trainer.world_size)
        for batch in draw_samples(trainer, method, draw, given, share, self.batch_size, f"drawing {name}"):
            own.update(batch | partners(batch, given, own.read, order))
            shuffled.update(batch | partners(batch, given, shuffled.read, others))
        own.write(self._figures)
        shuffled.write(self._figures)

    def _measure_control(self, trainer: Trainer, method: Method, data: DataModule, name: str, split: Split) -> None:
        """Samples of a control, beside what belongs to their rows."""
        control = self.controls[name]
        metrics = readers(control, self.metrics, data, method.givable)
        needed = {entry for metric in metrics for entry in metric.inputs if entry.startswith(REFERENCE)}
        share = range(trainer.global_rank, self._num_drawn, trainer.world_size)
        entries = {*method.givable, *needed, *control.makes, "index"}
        column = Column(name, metrics, entries, self._num_drawn, control.protocol() | {"split": split})
        for start in range(0, len(share), self.batch_size):
            indices = share[start : start + self.batch_size]
            batch = {"index": torch.tensor(indices)} | control.samples(data, split, indices)
            column.update(own_rows(batch, method.givable, needed, data, split) | batch)
        column.write(self._figures)

    def _shuffled(self, name: str) -> str:
        """Column of a draw's samples beside what belongs to others."""
        is_only = sum(bool(draw.given) for draw in self.draws.values()) == 1
        return "shuffled" if is_only else f"{name}, shuffled"

    def _fill(self, column: Column, batches: Iterable[Batch]) -> None:
        """Feed a column with this process's share, which may be empty, and write its figures."""
        for batch in batches if column.metrics else ():
            column.update(batch)
        column.write(self._figures)


def is_of_training(metric: SampleMetric) -> bool:
    """Whether a metric compares with statistics of the training split."""
    return has_reference(metric) and metric.reference is not None and metric.reference.split == "train"


def fit(metric: SampleMetric, data: DataModule) -> None:
    """Let a metric learn, if it learns.

    Raises:
        ValueError: If the training split lacks what it learns from, or is not in memory.
    """
    if metric.fit_inputs:
        metric.fit(*fit_values(metric, data))


def fit_values(metric: SampleMetric, data: DataModule) -> list[Tensor]:
    """Entries of the training split that a metric learns from.

    Args:
        metric: The metric.
        data: Real data.

    Raises:
        ValueError: If the training split does not have them, or is not in memory.
    """
    try:
        train = data.columns("train")
    except ValueError as error:
        raise ValueError(
            f"metrics: {metric.name()} learns from {' and '.join(metric.fit_inputs)} of the whole training split; "
            f"{error}; take a metric with a pretrained extractor or judge"
        ) from None
    tensors = {name: values for name, values in train.items() if isinstance(values, Tensor)}
    for name in metric.fit_inputs:
        if name not in tensors:
            raise ValueError(
                f"metrics: {metric.name()} learns from {name}, expected a tensor of the training split, which has "
                f"{', '.join(tensors)}"
            )
    return [tensors[name] for name in metric.fit_inputs]
