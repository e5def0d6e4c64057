"""Throughput by a clock that is set by hand."""

import pytest
import torch
from lightning import Trainer
from torch import nn

from mmdiffusion.callbacks import GradientShare, Throughput
from tests.helpers import Oracle, Pictures, build_method, build_trainer

BATCH = 8


class Clock:
    """Seconds pass when a step, or a validation, says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Timed(Oracle):
    """A step takes as long as it is told, the first a minute; a product of 3 x 4 and 4 x 5 is made in each."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.steps = clock, seconds, 0
        self.product = nn.Linear(4, 5, bias=False)

    def losses(self, batch, generator):
        if self.training:
            self.clock.now += self.seconds if self.steps else 60
            self.steps += 1
            made = self.product(torch.ones(3, 4, requires_grad=True)).sum()
            return {name: value + 0 * made for name, value in super().losses(batch, generator).items()}
        self.clock.now += 1000
        return super().losses(batch, generator)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("mmdiffusion.callbacks.throughput.perf_counter", clock)
    return clock


def figures(folder, method, callback, **settings):
    options = {"max_steps": 6, "limit_val_batches": 0, "log_every_n_steps": 2} | settings
    trainer = build_trainer(folder, callback, **options)
    trainer.fit(method, datamodule=Pictures(BATCH, num_train=64))
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("throughput")}


def test_samples_a_second_leave_out_the_first_step(tmp_path, clock):
    made = figures(tmp_path, Timed(clock, 0.5), Throughput())
    assert made == {"throughput/samples_per_second": pytest.approx(BATCH / 0.5)}


def test_validation_is_left_out(tmp_path, clock):
    settings = {"limit_val_batches": 1, "val_check_interval": 3}
    made = figures(tmp_path, Timed(clock, 0.25), Throughput(), **settings)
    assert made["throughput/samples_per_second"] == pytest.approx(BATCH / 0.25)


def test_use_of_the_device_is_operations_over_seconds_and_peak(tmp_path, clock):
    made = figures(tmp_path, Timed(clock, 0.5), Throughput(peak_flops=1000.0))
    operations = 3 * 2 * 3 * 4 * 5  # forward, and twice that backward
    assert made["throughput/mfu"] == pytest.approx(operations / 0.5 / 1000)


def test_the_step_after_the_one_that_is_counted_is_left_out_as_it_compiles(tmp_path, clock):
    class Compiling(Timed):
        def losses(self, batch, generator):
            self.clock.now += 30 if self.steps == 1 else 0
            return super().losses(batch, generator)

    settings = {"max_steps": 3, "log_every_n_steps": 3}
    made = figures(tmp_path, Compiling(clock, 0.5), Throughput(peak_flops=1000.0), **settings)
    assert made["throughput/samples_per_second"] == pytest.approx(BATCH / 0.5)


def test_operations_of_another_callback_are_not_those_of_a_step(tmp_path):
    share, alone = GradientShare(["mse"], every_n_steps=1), Throughput(1e12)
    build_trainer(tmp_path, alone, max_steps=1).fit(build_method(), datamodule=Pictures(BATCH))
    beside = Throughput(1e12)
    build_trainer(tmp_path, share, beside, max_steps=1).fit(build_method(), datamodule=Pictures(BATCH))
    assert beside._flops == alone._flops > 0
    with pytest.raises(ValueError, match="GradientShare comes after Throughput: expected it before"):
        build_trainer(tmp_path, Throughput(1e12), share, max_steps=1).fit(build_method(), datamodule=Pictures(BATCH))
    build_trainer(tmp_path, Throughput(), share, max_steps=1).fit(build_method(), datamodule=Pictures(BATCH))


def test_a_rate_is_that_of_all_processes(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(Trainer, "world_size", 3)
    made = figures(tmp_path, Timed(clock, 0.5), Throughput(peak_flops=1000.0))
    assert made["throughput/samples_per_second"] == pytest.approx(3 * BATCH / 0.5)
    assert made["throughput/mfu"] == pytest.approx(3 * 2 * 3 * 4 * 5 / 0.5 / 1000), "of one device"


def test_no_number_is_read_back_from_the_device(tmp_path):
    """Tensors without values, which nothing can be read of, stand for those of a device that is still at work."""
    unread = torch.zeros((), device="meta")
    with pytest.raises(RuntimeError):
        float(unread)

    class Far(Throughput):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            batch = {name: torch.zeros_like(values, device="meta") for name, values in batch.items()}
            super().on_train_batch_end(trainer, pl_module, {"loss": unread}, batch, batch_idx)

    assert figures(tmp_path, build_method(), Far(1e12))["throughput/samples_per_second"] > 0


def test_tokens_are_those_of_the_denoiser(tmp_path):
    method = build_method()
    made = figures(tmp_path, method, Throughput())
    tokens = made["throughput/tokens_per_second"] / made["throughput/samples_per_second"]
    assert tokens == pytest.approx((8 / 4) ** 2)


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan")])
def test_a_peak_that_is_none_is_named(peak):
    with pytest.raises(ValueError, match=f"peak_flops is {peak}: expected above 0"):
        Throughput(peak)
