"""Throughput by a clock that is set by hand."""

import pytest
import torch
from torch import nn

from mmdiffusion.callbacks import Throughput
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


def test_tokens_are_those_of_the_denoiser(tmp_path):
    method = build_method()
    made = figures(tmp_path, method, Throughput())
    tokens = made["throughput/tokens_per_second"] / made["throughput/samples_per_second"]
    assert tokens == pytest.approx((8 / 4) ** 2)


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan")])
def test_a_peak_that_is_none_is_named(peak):
    with pytest.raises(ValueError, match=f"peak_flops is {peak}: expected above 0"):
        Throughput(peak)
