"""What every method shares: the learning rate, the optimizer, and where the noise of training comes from."""

import math

import pytest
import torch

from mmdiffusion.methods.base import check_precision, warmup_cosine
from tests.helpers import Oracle, Pictures, build_trainer


def test_warmup_cosine_by_hand():
    factors = [warmup_cosine(step, 4, 12) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[6] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factors[12] == factors[13] == 0


def test_warmup_cosine_without_warmup_or_training():
    assert warmup_cosine(0, 0, 10) == 1
    assert warmup_cosine(0, 5, 3) == pytest.approx(0.2)
    assert warmup_cosine(3, 3, 3) == 1


class Recorder(Oracle):
    """Keeps the noise, the batch and the rate of every step."""

    def __init__(self, warmup_steps=0):
        super().__init__()
        self.warmup_steps = warmup_steps
        self.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.draws, self.rates = {"train": [], "validation": []}, []

    def losses(self, batch, generator):
        draws = self.draws["train" if self.training else "validation"]
        draws.append(torch.rand(2, generator=generator).tolist())
        return super().losses(batch, generator)

    def on_train_batch_start(self, batch, batch_idx):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])


def fitted(folder, method, **settings):
    defaults = {"max_epochs": 2, "limit_val_batches": 1}
    build_trainer(folder, **defaults | settings).fit(method, datamodule=Pictures())
    return method


def test_the_schedule_moves_by_step(tmp_path):
    method = fitted(tmp_path, Recorder(warmup_steps=2))
    assert method.rates == pytest.approx([warmup_cosine(step, 2, 4) for step in range(4)])
    (group,) = method.trainer.optimizers[0].param_groups
    assert len(group["params"]) == 1, "a frozen parameter has no place in the optimizer"
    assert group["params"][0] is method.weight


def test_the_schedule_counts_optimizer_steps(tmp_path):
    method = fitted(tmp_path, Recorder(), accumulate_grad_batches=2)
    assert method.rates == pytest.approx([1.0, 1.0, 0.5, 0.5])


def test_noise_differs_between_batches_and_seeds_and_repeats(tmp_path):
    first, second, other = Recorder(), Recorder(), Recorder()
    other.seed = 1
    for method in (first, second, other):
        fitted(tmp_path, method)
    noise = first.draws["train"]
    assert len(noise) == 4
    assert len({tuple(draw) for draw in noise + other.draws["train"]}) == 8
    assert second.draws == first.draws


def test_noise_differs_between_ranks():
    method = Oracle()

    class FakeTrainer:
        world_size = 2
        global_rank = 0

    trainer = FakeTrainer()
    method._trainer = trainer
    draws = set()
    for trainer.global_rank in (0, 1):
        for batch in range(3):
            draws.add(torch.rand((), generator=method.generator("train", batch)).item())
    assert len(draws) == 6


def test_noise_of_validation_is_the_same_every_time(tmp_path):
    method = fitted(tmp_path, Recorder())
    first, second = method.draws["validation"]
    assert first == second
    assert first not in method.draws["train"]


@pytest.mark.parametrize("missing", ["image", "label", "index"])
def test_a_batch_that_lacks_what_samples_are_drawn_for_is_named(missing):
    batch = Pictures().rows("test", range(3))
    assert set(Oracle().predict_step(batch, 0)) == {"image", "label", "index"}
    del batch[missing]
    with pytest.raises(ValueError, match=f"a batch has .*: expected {missing} as well, for samples that are drawn"):
        Oracle().predict_step(batch, 0)


def test_gradients_are_clipped_by_norm(tmp_path):
    method = Recorder()
    method.weight.data.fill_(3.0)
    fitted(tmp_path, method, max_epochs=1, max_steps=1, gradient_clip_val=0.5, limit_val_batches=0)
    assert method.weight.item() == pytest.approx(2.5)


@pytest.mark.parametrize(("algorithm", "expected"), [("norm", [0.6, 0.8]), (None, [0.6, 0.8]), ("value", [1.0, 1.0])])
def test_gradients_are_clipped_as_asked(algorithm, expected):
    method = Oracle()
    method.weight = torch.nn.Parameter(torch.zeros(2))
    method.weight.grad = torch.tensor([3.0, 4.0])
    optimizer = torch.optim.AdamW([method.weight], fused=True)
    method.configure_gradient_clipping(optimizer, 1.0, algorithm)
    torch.testing.assert_close(method.weight.grad, torch.tensor(expected))


def test_the_epoch_of_the_noise_goes_on(tmp_path):
    """Two epochs of two batches draw the same noise as one epoch of four: it is numbered by batch in the run."""
    two, one = Recorder(), Recorder()
    fitted(tmp_path, two)
    build_trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(one, datamodule=Pictures(num_train=32))
    assert two.draws["train"] == one.draws["train"]


def optimizers(fused):
    return [torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=fused)]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_of_the_tables_is_refused(precision):
    with pytest.raises(ValueError, match=f"precision is {precision}: expected 32-true, bf16-mixed or 16-mixed"):
        check_precision(precision)


def test_clipping_of_scaled_gradients_is_refused():
    with pytest.raises(ValueError, match=r"precision is 16-mixed.*expected fused: false"):
        check_precision("16-mixed", optimizers(fused=True), 1.0)
    check_precision("16-mixed", optimizers(fused=True))
    check_precision("16-mixed", optimizers(fused=False), 1.0)
    check_precision("bf16-mixed", optimizers(fused=True), 1.0)
