"""CheckedCallback: a callback whose mistakes are found before anything is written."""

from abc import ABC, abstractmethod
from typing import ClassVar

from lightning import Callback, LightningModule, Trainer

from mmdiffusion.data.base import DataModule


class CheckedCallback(Callback, ABC):
    """Its settings may not fit a run: the command line asks before the run's folder exists, `setup` asks otherwise.

    Attributes:
        fit_only: Whether it works in `fit` alone, so that other commands need not be checked.
    """

    fit_only: ClassVar[bool] = False

    @abstractmethod
    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check its settings.

        Args:
            trainer: Says where and how the run works.
            method: The method.
            data: The data; `None` where a trainer is handed other loaders.

        Raises:
            ValueError: naming the setting, what was expected, and a remedy.
        """

    def is_checked_in(self, command: str | None) -> bool:
        """Whether it is checked in a command, or stage.

        Args:
            command: `fit`, `validate`, `test` or `predict`.
        """
        return command == "fit" or not self.fit_only

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check its settings where no command line has."""
        if self.is_checked_in(stage):
            self.check(trainer, pl_module, getattr(trainer, "datamodule", None))
