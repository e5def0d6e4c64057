"""LastCheckpoint: the state to go on from and to test."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` up to date, and always with the last step of a fit.

    (Lightning's own leaves it at the last multiple of the interval.)

    Args:
        every_n_steps: Optimizer steps between writes.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: expected at least 1")
        super().__init__(every_n_train_steps=every_n_steps, save_top_k=0, save_last=True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write when it is due, and after the last step: later, a loop's counters no longer say where to go on."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or trainer.should_stop or (is_last_epoch and trainer.is_last_batch):
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final state of a fit that was stopped between two steps, as by early stopping."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def state_dict(self) -> dict:
        """Nothing: there is no best checkpoint to remember, and a run that goes on elsewhere writes there."""
        return {}
