"""StartFrom: a training that starts from what another run learned."""

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.checkpoints import checkpoint_of, read_checkpoint
from mmdiffusion.data.base import DataModule


class StartFrom(CheckedCallback):
    """Starts a training with the averaged weights of another run, such as one task of a joint model.

    The two configurations may differ in shares, weights, data and length, not in what has weights. A training that is
    resumed goes on with its own, and the command line does not look for the other run any more.

    Args:
        path: Run folder, one of its checkpoints, or its export.
    """

    fit_only = True

    def __init__(self, path: str) -> None:
        self.path = path
        self._weights: dict[str, Tensor] | None = None

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Find a missing or unfitting run; what is read is kept until it is in place. See `CheckedCallback`."""
        self._weights = self._read(method)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the weights in place, before averages are started and a checkpoint of the training itself is restored.

        Raises:
            ValueError: if there is no run, or its weights do not fit.
        """
        if stage == "fit":
            pl_module.load_state_dict(self._weights or self._read(pl_module))
            self._weights = None
            rank_zero_info(f"weights of {self.path}")

    def _read(self, method: LightningModule) -> dict[str, Tensor]:
        checkpoint = checkpoint_of(self.path)
        if not checkpoint.is_file():
            raise ValueError(
                f"StartFrom has path {self.path}: expected a finished run or its checkpoint, there is none; train that "
                "first, see the head of this configuration"
            )
        theirs, own = read_checkpoint(checkpoint)["state_dict"], method.state_dict()
        for name in [*own, *theirs]:
            found, expected = (tuple(state[name].shape) if name in state else None for state in (theirs, own))
            if found != expected:
                raise ValueError(
                    f"StartFrom has path {self.path}: its {name} is {found or 'missing'}, this configuration's "
                    f"{expected or 'missing'}; expected the same model"
                )
        return theirs
