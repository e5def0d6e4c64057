"""Throughput: how fast a training goes, without waiting for the device."""

import math
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.callbacks.gradients import GradientShare
from mmdiffusion.data.base import DataModule
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.types import Batch


class Throughput(CheckedCallback):
    """Logs samples and denoiser tokens a second, of all processes together, with each line of the training's log.

    The clock is read where the trainer logs, which reads the losses anyway: no step waits for the device. What happens
    between trainings' steps, validation and sampling, is left out; the first line leaves out the step that compiles and
    warms up: the first, or the second where the operations of the first are counted, which is not compiled for that.

    Args:
        peak_flops: Operations a second that one device can do at the training's precision, such as 989e12 of an H100
            in bfloat16. With it the share that is used (model FLOPs utilisation, MFU) is logged as well; the
            operations of a step are counted once, in the first. `None` logs no share.
    """

    fit_only = True

    def __init__(self, peak_flops: float | None = None) -> None:
        if peak_flops is not None and not peak_flops > 0:
            raise ValueError(f"peak_flops is {peak_flops}: expected above 0")
        self.peak_flops = peak_flops
        self._counter: FlopCounterMode | None = None
        self._counting = ExitStack()
        self._flops = 0
        self._forget()

    def _forget(self) -> None:
        self._num_samples, self._num_batches, self._seconds = 0, 0, 0.0
        self._since: float | None = None

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check that no callback with losses of its own comes later, within the count; see `CheckedCallback`."""
        later = trainer.callbacks[trainer.callbacks.index(self) :]  # pyright: ignore[reportAttributeAccessIssue]
        if self.peak_flops is not None and any(isinstance(callback, GradientShare) for callback in later):
            raise ValueError(
                f"peak_flops is {self.peak_flops}, and GradientShare comes after Throughput: expected it before, as "
                "its operations would count as those of the step; put Throughput last among the callbacks"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start without a past."""
        self._forget()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the operations of the first step, where they are asked for."""
        if self.peak_flops is not None and self._counter is None:
            self._counter = self._counting.enter_context(FlopCounterMode(display=False))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count a batch, and log where the trainer does."""
        if self._counter is not None and not self._flops:
            self._counting.close()
            self._flops = self._counter.get_total_flops()
            return
        if self._since is None:  # the first step since the start or a break: from here on it is timed
            self._since = perf_counter()
            return
        self._num_samples += len(next(values for values in batch.values() if isinstance(values, Tensor | list)))
        self._num_batches += 1
        if trainer._logger_connector.should_update_logs:
            self._pause()
            self._log(trainer, pl_module)
            self._num_samples, self._num_batches, self._seconds = 0, 0, 0.0
            self._since = perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._pause()

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += perf_counter() - self._since
        self._since = None

    def _log(self, trainer: Trainer, method: LightningModule) -> None:
        rate = self._num_samples / self._seconds
        figures = {"samples_per_second": rate * trainer.world_size}
        denoisers = [module for module in method.modules() if isinstance(module, Denoiser)]
        if denoisers:
            tokens = sum(math.prod(denoiser.grid) for denoiser in denoisers)
            figures["tokens_per_second"] = figures["samples_per_second"] * tokens
        if self.peak_flops is not None:
            figures["mfu"] = self._flops * self._num_batches / self._seconds / self.peak_flops
        for name, value in figures.items():
            method.log(f"throughput/{name}", value)
