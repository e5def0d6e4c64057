"""SkipBadSteps: a step whose gradient is not finite changes no weight, and many in a row end a training."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, distributed
from torch.optim import Optimizer

from mmdiffusion.sharding import gradient_norm
from mmdiffusion.types import Batch

FILE = "skipped_steps.jsonl"
"""What was skipped, in the run's folder: one line a process and step."""

_log = logging.getLogger(__name__)


class SkipBadSteps(Callback):
    """Skips a step whose gradient is not finite: weights and optimizer stay as they are, in all processes.

    The samples of its batches are written to `skipped_steps.jsonl`. The gradients of all processes are one, so they
    agree without asking one another. (With 16-mixed, gradients that overflow where the loss is finite are the loss
    scale's own business, until it has come down to 1.)

    Args:
        limit: Bad steps in a row after which the training ends.
    """

    def __init__(self, limit: int = 10) -> None:
        if limit < 1:
            raise ValueError(f"limit is {limit}: expected at least 1")
        self.limit = limit
        self.in_a_row, self.total = 0, 0
        self._indices: list[Tensor] = []
        self._terms: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember the samples of the batches of a step."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._indices, self._terms = [], []
        index = batch.get("index")
        if isinstance(index, Tensor):
            self._indices.append(index)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the terms of the loss of each batch of a step, without waiting for the device."""
        metrics = trainer.callback_metrics.items()
        self._terms.append({name: value for name, value in metrics if name.startswith("train/")})

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradient, after all processes have added theirs.

        Raises:
            ValueError: after too many bad steps in a row, or if more than the gradient is spoilt.
        """
        plugin = trainer.precision_plugin
        scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        order = 2.0 if scaler is None else math.inf  # the scale looks at the largest entry, and the two have to agree
        if bool(gradient_norm(parameters, order).isfinite()):
            self.in_a_row = 0
            return
        terms = self._means()
        is_finite = all(math.isfinite(value) for value in terms.values())
        if scaler is None:
            optimizer.zero_grad(set_to_none=True)
        elif scaler.get_scale() > 1 and trainer.strategy.reduce_boolean_decision(is_finite, all=True):
            return  # an overflow; the scale skips this step, and all that are counted here, by itself
        self.in_a_row, self.total = self.in_a_row + 1, self.total + 1
        self._write(trainer, terms)
        self._check(trainer, pl_module)

    def _means(self) -> dict[str, float]:
        """Terms of the loss over the batches of the step; one that is not finite is not averaged away."""
        parts = {name: [terms[name] for terms in self._terms if name in terms] for name in self._terms[-1]}
        return {name: float(torch.stack(values).mean()) for name, values in parts.items()}

    def _write(self, trainer: Trainer, terms: dict[str, float]) -> None:
        own = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "terms": {name: repr(value) for name, value in terms.items()},
            "index": torch.cat(self._indices).tolist() if self._indices else [],
        }
        lines: list[Any] = [own] * trainer.world_size
        if trainer.world_size > 1:
            distributed.all_gather_object(lines, own)
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            _log.warning("step %d skipped: its gradient is not finite; see %s", trainer.global_step, path)

    def _check(self, trainer: Trainer, method: LightningModule) -> None:
        where = f"see {Path(trainer.default_root_dir) / FILE} for the samples"
        state = method.state_dict()
        spoilt = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if spoilt:
            raise ValueError(
                f"step {trainer.global_step}: its gradient is not finite, and neither is {spoilt[0]} any more, so the "
                f"step cannot be skipped; {where}, and go on from the last checkpoint with other data or settings"
            )
        if self.in_a_row >= self.limit:
            raise ValueError(
                f"{self.in_a_row} steps in a row, up to step {trainer.global_step}, had a gradient that is not finite: "
                f"the training ends; {where}. The weights are still those before; expected a lower learning rate, "
                "gradient clipping, or other data to help"
            )

    # Checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"in_a_row": self.in_a_row, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Count on.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]
