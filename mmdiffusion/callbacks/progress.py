"""Progress bars: training by steps, sampling by samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class StepProgress(ProgressBar):
    """One bar over all training steps: epochs of a few steps, as embedded data has, make a bar an epoch useless."""

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def enable(self) -> None:
        """Show the bar."""
        self.is_enabled = True

    def disable(self) -> None:
        """Show nothing: what Lightning asks of every process but the first."""
        self.is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step a resumed fit starts from."""
        total = None if trainer.max_steps < 0 else trainer.max_steps
        self._open("training", total, completed=trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance, with the loss beside the bar."""
        if self._progress is not None and trainer.global_step % 10 == 0:
            loss = trainer.callback_metrics.get("train/loss")
            note = "" if loss is None else f"loss {float(loss):.3f}"
            self._progress.update(self._task, completed=trainer.global_step, note=note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step)
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar over the batches to predict."""
        self._open("drawing predictions, batches", int(sum(trainer.num_predict_batches)))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance by a batch."""
        if self._progress is not None:
            self._progress.advance(self._task)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for work in between, below the bar that is open; yields the function that advances it.

        Args:
            description: What is done.
            total: How many there are to do.
        """
        progress = self._progress or self._new()
        is_own = self._progress is None
        task = progress.add_task(description, total=total, note="")
        if is_own:
            progress.start()
        try:
            yield lambda count: progress.advance(task, count)
        finally:
            if is_own:
                progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _open(self, description: str, total: int | None, completed: int = 0) -> None:
        self._progress = self._new()
        self._task = self._progress.add_task(description, total=total, completed=completed, note="")
        self._progress.start()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _new(self) -> Progress:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        note = TextColumn("{task.fields[note]}")
        return Progress(TextColumn("{task.description}"), *columns, note, disable=not self.is_enabled)
