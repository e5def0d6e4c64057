"""LastCheckpoint: the state to go on from and to test."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` up to date, and always with the last step of a fit.

    (Lightning's own leaves it at the last multiple of the interval.)

    Args:
        every_n_steps: Optimizer steps between writes.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        super().__init__(every_n_train_steps=every_n_steps, save_top_k=0, save_last=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final state."""
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
