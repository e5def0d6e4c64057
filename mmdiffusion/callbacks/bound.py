"""Bound: what a trained MT-Diffusion's bound is, term by term."""

import math

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.callbacks.draws import num_within
from mmdiffusion.callbacks.table import Figures, report
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.joint_bound import NUM_QUARTERS, check_hidden, joint_bound, strata
from mmdiffusion.methods.mt_diffusion import MTDiffusion

OF_IMAGE = ["prior", *(f"diffusion_t{i + 1}" for i in range(NUM_QUARTERS)), "decoder", "image"]
"""L0, L1 by quarter of the time, L3, and their sum."""


class Bound(CheckedCallback):
    """Measures the variational bound of MT-Diffusion with all its extras hidden: `validate` and `test` print it.

    In nats a sample and in bits per number of the image: `prior` (L0), `diffusion_t1` to `diffusion_t4` (L1 by quarter
    of the time, the last the noisiest), `decoder` (L3), `image` in sum, and each extra (L2) under its name. L2 is
    that of a single copy, `-log p`, the mean over t; `-log p x T` is the paper's sum over t, T copies of the extra.
    Mean over the split, or what `trainer.limit_test_batches` or `trainer.limit_val_batches` leaves of it, all
    processes together; written to `bound.json` and `bound-val.json`.

    Args:
        num_strata: Parts of the time of which one is drawn a sample: network calls, at most T - 1 of them.
        batch_size: Samples at a time.
    """

    def __init__(self, num_strata: int = 50, batch_size: int = 250) -> None:
        if num_strata < 1 or batch_size < 1:
            raise ValueError(f"num_strata is {num_strata}, batch_size is {batch_size}: expected at least 1 of each")
        self.num_strata, self.batch_size = num_strata, batch_size

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check that a method has such a bound; see `CheckedCallback`."""
        if not isinstance(method, MTDiffusion):
            raise ValueError(f"Bound has {type(method).__name__}: expected MTDiffusion; leave Bound out of this run")
        if not method.codec.is_plain:
            codec = type(method.codec).__name__
            raise ValueError(
                f"Bound has the codec {codec}: expected Pixels, the bound is one of images; leave Bound out of this run"
            )
        check_hidden(method)
        list(strata(method.diffusion.num_steps, self.num_strata))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure on the validation split, where validation is all that was asked for."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._measure(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure on the test split."""
        self._measure(trainer, pl_module, "test")

    def _measure(self, trainer: Trainer, method: LightningModule, split: Split) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(method, MTDiffusion)
        assert isinstance(data, DataModule)
        names = [*OF_IMAGE, *(extra.name for extra in method.each())]
        total = torch.zeros(len(names), dtype=torch.float64, device=method.device)
        limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
        size = num_within(data.num_rows(split), limit, data.eval_batch_size)
        share = range(trainer.global_rank, size, trainer.world_size)
        for start in range(0, len(share), self.batch_size):
            batch = data.rows(split, share[start : start + self.batch_size])
            with trainer.precision_plugin.forward_context():
                terms = joint_bound(method, batch, self.num_strata)
            total += torch.stack([terms[name].double().sum() for name in names])
        summed = trainer.strategy.reduce(total, reduce_op="sum")
        assert isinstance(summed, Tensor)
        if trainer.is_global_zero:
            self._report(dict(zip(names, (summed / size).tolist(), strict=True)), trainer, split, size, method)

    def _report(self, nats: dict[str, float], trainer: Trainer, split: Split, size: int, method: MTDiffusion) -> None:
        num_steps, image = method.diffusion.num_steps, method.image
        protocol = {"num_samples": size, "num_strata": self.num_strata, "num_steps": num_steps}
        bit = image.channels * image.size**2 * math.log(2)
        extras = [name for name in nats if name not in OF_IMAGE]
        values = {
            "bound, bits/dim": {name: value / bit for name, value in nats.items()},
            "bound, nats": {name: nats[name] for name in OF_IMAGE},
            "-log p, nats": {name: nats[name] for name in extras},
            "-log p x T, nats": {name: nats[name] * num_steps for name in extras},
        }
        figures: Figures = {
            metric: {name: {"value": value} | protocol for name, value in row.items()}
            for metric, row in values.items()
            if row
        }
        report(figures, list(nats), trainer, split, f"bound over {size} samples", stem="bound")
