"""LastCheckpoint: the state to go on from and to test, also when a training is told to stop."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from mmdiffusion.resuming import write_whole
from mmdiffusion.signals import Signals, Stopped


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Its contents.
            path: Where to.
            storage_options: `None`: a file has none.
        """
        assert storage_options is None
        write_whole(checkpoint, Path(path))


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` up to date, also with the last step of a fit; the one before is `previous.ckpt`.

    (Lightning's own leaves it at the last multiple of the interval.) SIGTERM, SIGUSR1 or Ctrl-C end the training after
    the step at hand, in all processes, with a checkpoint of that step; a second one ends it at once.

    Args:
        every_n_steps: Optimizer steps between writes.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: expected at least 1")
        super().__init__(every_n_train_steps=every_n_steps, save_top_k=0, save_last=True, enable_version_counter=False)
        self._signals = Signals()
        self._heard_step: int | None = None
        self._is_logged = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written whole, unless the trainer was given a way of its own."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals: Lightning's own answer talks to other processes, which may be busy with something else."""
        self._signals.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step
        self._heard_step = None
        self._signals.listen()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write when it is due, when asked to stop, and after the last step: later, no counter says where to go on."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # gradients are half added up, and are in no checkpoint
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.strategy.reduce_boolean_decision(self._signals.name is not None, all=False):
            self._heard_step = trainer.global_step
        is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        is_over = trainer.global_step == trainer.max_steps or (is_last_epoch and trainer.is_last_batch)
        if is_over or trainer.should_stop or self._heard_step is not None:
            self._write(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop, if asked to: only now is the step of the checkpoint in the log."""
        self._finish_step(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, if asked to; the validation that is due here is made when the training goes on."""
        self._finish_step(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final state of a fit that was stopped between two steps, as by early stopping."""
        self._write(trainer)
        self._signals.forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more; what was heard has been answered."""
        self._signals.forget()
        self._heard_step = None

    def _write(self, trainer: Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._is_logged = False

    def _finish_step(self, trainer: Trainer) -> None:
        if not self._is_logged:  # the curve on disk reaches as far as the checkpoint
            save_logs(trainer)
            self._is_logged = True
        if self._heard_step is not None:
            asked = f"{self._signals.name or 'a signal to another process'} asked"
            next_command = f"`mmdiffusion fit --run {trainer.default_root_dir}` goes on"
            raise Stopped(f"stopped after step {self._heard_step}, as {asked}; {next_command}")

    def state_dict(self) -> dict:
        """Nothing: there is no best checkpoint to remember, and a run that goes on elsewhere writes there."""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing.

        Args:
            state_dict: Of an earlier training.
        """


@rank_zero_only
def save_logs(trainer: Trainer) -> None:
    """Have what was logged so far written to disk."""
    for logger in trainer.loggers:
        logger.save()
