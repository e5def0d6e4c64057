"""SkipBadSteps beside a loss scale (precision 16-mixed): an overflow is the scale's business, a spoilt loss is not."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from tests.callbacks.test_bad_steps import Spoilt, fit, skipped

NAN = math.nan


class Halved(Spoilt):
    """Its gradients pass through half precision, which ends at 65504; those of some batches are one, the others half.

    PyTorch's first scale is 65536, so that ones overflow until it has been halved.
    """

    def __init__(self, bad, ones, optimizer=None):
        super().__init__(bad, optimizer)
        self.ones = ones

    def losses(self, batch, generator):
        size = 1.0 if self.batch in self.ones else 0.5
        return {"loss": super().losses(batch, generator)["loss"].half().float() * size}


class Rootless(Spoilt):
    """From the second batch on, a finite loss whose gradient never is: the root of zero."""

    def losses(self, batch, generator):
        is_first = self.batch == 0
        loss = super().losses(batch, generator)["loss"]
        return {"loss": loss if is_first else (self.weight * 0).abs().sum().sqrt()}


def fit_scaled(folder, method, **settings):
    """Train with a loss scale on the CPU, which Lightning builds for a GPU alone; return guard, trainer and scale."""
    plugin = MixedPrecision("16-mixed", "cpu")
    guard, trainer = fit(folder, method, plugins=plugin, **settings)
    assert plugin.scaler is not None
    return guard, trainer, plugin.scaler.get_scale()


def counted(trainer):
    """Steps that the optimizer has taken."""
    (state,) = trainer.optimizers[0].state.values()
    return state["step"]


def test_an_overflow_is_left_to_the_scale(tmp_path):
    method = Halved({}, ones={2, 4})
    guard, trainer, scale = fit_scaled(tmp_path, method, gradient_clip_val=10.0)
    assert scale == 32768, "the second one does not overflow any more"
    assert method.history[2] == method.history[3]
    assert len(set(method.history)) == 5
    assert (counted(trainer), guard.total) == (5, 0)
    assert not (tmp_path / "skipped_steps.jsonl").exists()


@pytest.mark.parametrize("is_fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("value", [NAN, math.inf], ids=str)
def test_a_loss_that_is_not_finite_is_skipped_and_written(tmp_path, value, is_fused):
    method = Spoilt({2: value}, partial(torch.optim.AdamW, lr=0.1, fused=is_fused))
    guard, trainer, _ = fit_scaled(tmp_path, method)
    assert method.history[2] == method.history[3]
    assert len(set(method.history)) == 5
    assert method.weight.isfinite().all()
    assert counted(trainer) == 5
    assert (guard.in_a_row, guard.total) == (0, 1)
    (line,) = skipped(tmp_path)
    assert (line["step"], line["index"]) == (2, list(range(8)))
    assert line["terms"] == {"train/loss": repr(-value) if value > 0 else "nan"}


def test_a_loss_that_is_finite_in_the_last_of_the_batches_only(tmp_path):
    guard, _, _ = fit_scaled(tmp_path, Spoilt({2: NAN}), accumulate_grad_batches=2, max_steps=3)
    assert guard.total == 1
    (line,) = skipped(tmp_path)
    assert (line["step"], line["terms"]) == (1, {"train/loss": "nan"})


def test_a_gradient_that_no_scale_makes_finite_ends_the_training(tmp_path):
    method = Rootless({})
    with pytest.raises(ValueError, match=r"10 steps in a row, up to step 26, had a gradient that is not finite"):
        fit_scaled(tmp_path, method, max_steps=60)
    assert [line["step"] for line in skipped(tmp_path)] == list(range(17, 27)), "after 16 halvings of 2 ** 16"
    assert len(set(method.history)) == 2
