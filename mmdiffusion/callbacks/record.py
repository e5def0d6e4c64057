"""What a run's folder says of its training: its settings, and its curve, which go on when the training does."""

import csv
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import LightningModule, Trainer
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from mmdiffusion.checkpoints import CONFIG
from mmdiffusion.resuming import PART

LOCK = ".lock"
"""Held by the process that trains a run."""
WAIT = 10.0
"""Seconds to wait for it: processes that read data for one that was killed live on for some."""


class RunConfig(SaveConfigCallback):
    """Writes the settings of a training into its folder, whole, and sees to it that no other trains there.

    Args:
        parser: Of the command line.
        config: The settings.
        **kwargs: Of `SaveConfigCallback`.
    """

    _lock: FileLock | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the folder, and write where nothing was before.

        Raises:
            ValueError: if another process trains in the folder.
        """
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=WAIT)
        except Timeout:
            raise ValueError(f"--run is {folder}: another process is training there; wait for it, or stop it") from None
        if not (folder / CONFIG).is_file():
            self._write(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the settings of a run that goes on, now that it is in its place: until then they may be refused."""
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir))

    def _write(self, folder: Path) -> None:
        write_text(folder / CONFIG, self.parser.dump(self.config, skip_none=False))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the folder."""
        self.teardown(trainer, pl_module, "fit")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Args:
        path: The file.
        text: What it will hold.
    """
    part = path.with_name(path.name + PART)
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class Curve(ExperimentWriter):
    """`metrics.csv`: what an earlier part of the training has logged stays, up to where this one goes on.

    The rest goes when something is logged, not before: until then another process may be training there.

    Args:
        folder: The run.
        first_step: Optimizer steps taken before.

    Raises:
        ValueError: if the file that is there has no steps.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        super().__init__(log_dir=str(folder))
        self.path, self.first_step = folder / self.NAME_METRICS_FILE, first_step
        self.is_begun = not self.path.is_file()
        if not self.is_begun and "step" not in self._read()[0]:
            raise ValueError(f"{self.path} has no column step: expected the curve of this run; move the file elsewhere")

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Log a row, before the first of which those of steps that are made again are taken out."""
        if not self.is_begun:
            self._go_on()
        super().log_metrics(metrics_dict, step)

    def _go_on(self) -> None:
        self.is_begun = True
        self.metrics_keys, rows = self._read()
        part = self.path.with_name(self.path.name + PART)
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(row for row in rows if is_before(row, self.first_step))
        part.replace(self.path)

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Names of the columns, and rows."""
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return list(reader.fieldnames or []), rows

    def _check_log_dir_exists(self) -> None:
        """Nothing: Lightning's would delete what is there."""


def is_before(row: dict[str, Any], first_step: int) -> bool:
    """Whether a row of the curve was logged before a training of so many steps went on.

    Args:
        row: By column; steps are counted from 0.
        first_step: Steps taken: a validation after the last of them is made again.
    """
    if None in row.values():
        return False  # the last line, of which a crash or a full disk has left a part
    step = int(row["step"])
    is_validation = any(value for name, value in row.items() if name.startswith("val/"))
    return step < first_step - is_validation


class RunLogger(CSVLogger):
    """Logs into `metrics.csv` of a run, whose first rows may be there.

    Args:
        folder: The run.
        first_step: Optimizer steps taken before.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._folder, self._first_step = folder, first_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Curve:
        """The file, opened when it is first written to."""
        if self._experiment is None:
            self._experiment = Curve(self._folder, self._first_step)
        assert isinstance(self._experiment, Curve)
        return self._experiment
