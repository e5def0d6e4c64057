"""Bound: what a trained MT-Diffusion's bound is, term by term."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from mmdiffusion.callbacks.table import Figures, report
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.joint_bound import NUM_QUARTERS, joint_bound, strata
from mmdiffusion.methods.mt_diffusion import MTDiffusion

QUARTERS = [f"diffusion_t{i + 1}" for i in range(NUM_QUARTERS)]


class Bound(Callback):
    """Measures the variational bound of MT-Diffusion with all its extras hidden: `validate` and `test` print it.

    In bits per number of the image: `prior` (L0), `diffusion_t1` to `diffusion_t4` (L1 by quarter of the time, the
    last the noisiest), `decoder` (L3), `image` in sum; and in nats a sample, `-log p` of each extra (L2, a single
    copy). Mean over the split, all processes together; written to `bound.json` and `bound-val.json`.

    Args:
        num_strata: Parts of the time of which one is drawn a sample: network calls, at most T - 1 of them.
        batch_size: Samples at a time.
    """

    def __init__(self, num_strata: int = 50, batch_size: int = 250) -> None:
        if num_strata < 1 or batch_size < 1:
            raise ValueError(f"num_strata is {num_strata}, batch_size is {batch_size}: expected at least 1 of each")
        self.num_strata, self.batch_size = num_strata, batch_size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the method has such a bound, before a training."""
        if not isinstance(pl_module, MTDiffusion):
            raise ValueError(f"Bound has {type(pl_module).__name__}: expected MTDiffusion")
        if not pl_module.codec.is_plain:
            codec = type(pl_module.codec).__name__
            raise ValueError(f"Bound has the codec {codec}: expected Pixels, the bound is one of images; remove it")
        list(strata(pl_module.diffusion.num_steps, self.num_strata))

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
        names = ["prior", *QUARTERS, "decoder", "image", *(extra.name for extra in method.each())]
        total = torch.zeros(len(names), dtype=torch.float64, device=method.device)
        size = data.num_rows(split)
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

    def _report(self, means: dict[str, float], trainer: Trainer, split: Split, size: int, method: MTDiffusion) -> None:
        protocol = {"num_samples": size, "num_strata": self.num_strata, "num_steps": method.diffusion.num_steps}
        bits = ["prior", *QUARTERS, "decoder", "image"]
        figures: Figures = {"bound, bits/dim": {name: {"value": means[name]} | protocol for name in bits}}
        extras = [name for name in means if name not in bits]
        if extras:
            figures["-log p, nats"] = {name: {"value": means[name]} | protocol for name in extras}
        report(figures, [*bits, *extras], trainer, split, f"bound over {size} samples", stem="bound")
