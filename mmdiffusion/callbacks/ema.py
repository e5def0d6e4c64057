"""Exponential moving average of the weights that train."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from mmdiffusion.sharding import part, whole


class EMA(Callback):
    """Keeps an average of the trained weights and puts it in place wherever the model is looked at.

    Validation, samples, tests and predictions use the average; so does a checkpoint's `state_dict`, with the raw
    weights beside it for resuming. Only floating-point parameters that train are averaged: no buffer, no frozen part.
    (Lightning's own averaging copies the whole module and truncates integer buffers.)

    Args:
        decay: Share of the average kept per optimizer step, in [0, 1).
        warmup: Use min(decay, (1 + n) / (10 + n)) at step n, so that the first weights are soon forgotten.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: expected 0 up to, but not including, 1")
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self._seen_step = 0
        self._average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] | None = None

    def decay_at(self, num_updates: int) -> float:
        """Decay of one update.

        Args:
            num_updates: Updates made before it.
        """
        return min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.warmup else self.decay

    # Average ---------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights as they are, unless a checkpoint or an earlier fit has brought an average."""
        self._take_back(pl_module)
        if not self._average:
            self._average = {name: p.detach().clone() for name, p in trained(pl_module)}
        self._average = {name: tensor.to(pl_module.device) for name, tensor in self._average.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here: a fit that goes on has its step restored by now."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the weights in once per optimizer step, not per accumulated batch."""
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        share = 1 - self.decay_at(self.num_updates)
        for name, parameter in trained(pl_module):
            self._average[name].lerp_(parameter.detach(), share)
        self.num_updates += 1

    # Swap ------------------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place."""
        self._put(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back, when a fit goes on."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._take_back(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model; the raw weights are kept for the last checkpoint."""
        self._put(pl_module)

    def _put(self, module: nn.Module) -> None:
        if self._average and self._raw is None:
            self._raw = {name: p.detach().clone() for name, p in trained(module)}
            copy_into(module, self._average)

    def _take_back(self, module: nn.Module) -> None:
        if self._raw is not None:
            copy_into(module, self._raw)
            self._raw = None

    # Checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the average as the model's weights, and the raw weights beside it."""
        if not self._average:
            return
        raw = self._raw or {name: p.detach() for name, p in trained(pl_module)}
        checkpoint["ema"] = {
            "num_updates": self.num_updates,
            "raw": {name: p.clone() for name, p in whole(raw).items()},
        }
        checkpoint["state_dict"] = checkpoint["state_dict"] | whole(self._average)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """When a fit goes on: the average from the model's weights, and the raw weights into the model."""
        if trainer.state.fn != TrainerFn.FITTING or "ema" not in checkpoint:
            return
        averages = checkpoint["state_dict"]
        self._average = {name: part(averages[name].clone(), like) for name, like in trained(pl_module)}
        self.num_updates = checkpoint["ema"]["num_updates"]
        copy_into(pl_module, checkpoint["ema"]["raw"])


def trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that train, by name."""
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


@torch.no_grad()
def copy_into(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Write weights into the module's parameters in place."""
    for name, parameter in trained(module):
        parameter.copy_(part(weights[name], parameter))
