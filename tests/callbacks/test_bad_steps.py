"""A step that is not finite changes nothing, is named, and many in a row end a training."""

import json
from functools import partial

import pytest
import torch

from mmdiffusion.callbacks import EMA, SkipBadSteps
from mmdiffusion.diffusion import ImportanceTimes
from mmdiffusion.optimizers import MuonAdamW
from tests.helpers import Oracle, Pictures, build_trainer


class Spoilt(Oracle):
    """A weight that grows by gradients of one; the losses of some batches are not finite."""

    def __init__(self, bad, optimizer=None):
        super().__init__()
        self.make_optimizer = optimizer or partial(torch.optim.AdamW, lr=0.1)
        self.bad, self.history, self.batch = bad, [], 0
        self.register_buffer("table", torch.zeros(2))

    def losses(self, batch, generator):
        self.history.append(self.weight.item())
        number, self.batch = self.batch, self.batch + 1
        return {"loss": -self.weight.sum() * (torch.tensor(self.bad[number]) if number in self.bad else 1)}


def fit(folder, method, guard=None, **settings):
    guard = guard or SkipBadSteps()
    trainer = build_trainer(folder, guard, EMA(), **{"max_steps": 6, "limit_val_batches": 0} | settings)
    trainer.fit(method, datamodule=Pictures())
    return guard, trainer


def skipped(folder):
    return [json.loads(line) for line in (folder / "skipped_steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("optimizer", [None, MuonAdamW], ids=["adamw", "muon"])
def test_a_bad_step_changes_nothing(tmp_path, value, optimizer):
    method = Spoilt({2: value}, optimizer)
    guard, trainer = fit(tmp_path, method, gradient_clip_val=10.0)
    assert method.history[2] == method.history[3]
    assert len(set(method.history)) == 5
    assert trainer.global_step == 6
    (state,) = trainer.optimizers[0].state.values()
    assert state["step"] == 5, "the optimizer has not seen it"
    assert (guard.in_a_row, guard.total) == (0, 1)
    (line,) = skipped(tmp_path)
    assert line["step"] == 2
    assert line["rank"] == 0
    assert line["index"] == list(range(8))
    assert line["terms"] == {"train/loss": repr(-value) if value > 0 else "nan"}


@pytest.mark.parametrize("batch", [2, 3])
def test_all_batches_of_a_step_are_named(tmp_path, batch):
    fit(tmp_path, Spoilt({batch: float("nan")}), accumulate_grad_batches=2, max_steps=3)
    (line,) = skipped(tmp_path)
    assert line["step"] == 1
    assert line["index"] == list(range(16))
    assert line["terms"] == {"train/loss": "nan"}


def test_terms_are_the_means_over_the_batches_of_a_step(tmp_path):
    class Alternating(Spoilt):
        def losses(self, batch, generator):
            terms = super().losses(batch, generator)
            return terms | {"other": torch.tensor(float(self.batch))}

    fit(tmp_path, Alternating({2: float("nan")}), accumulate_grad_batches=2, max_steps=3)
    (line,) = skipped(tmp_path)
    assert line["terms"] == {"train/loss": "nan", "train/other": "3.5"}, "the third and fourth batch"


def test_many_in_a_row_end_the_training(tmp_path):
    bad = dict.fromkeys((0, 2, 3, 4, 5), float("nan"))
    method = Spoilt(bad)
    with pytest.raises(ValueError, match=r"3 steps in a row, up to step 4.*skipped_steps.jsonl.*learning rate"):
        fit(tmp_path, method, SkipBadSteps(limit=3))
    assert method.weight.isfinite().all()
    assert [line["step"] for line in skipped(tmp_path)] == [0, 2, 3, 4]


def test_what_cannot_be_skipped_ends_the_training(tmp_path):
    class Worse(Spoilt):
        def losses(self, batch, generator):
            terms = super().losses(batch, generator)
            self.table[1] = terms["loss"].item()  # pyright: ignore[reportIndexIssue]
            return terms

    with pytest.raises(ValueError, match="neither is table"):
        fit(tmp_path, Worse({1: float("nan")}))


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="limit is 0: expected at least 1"):
        SkipBadSteps(0)


def test_counts_are_part_of_a_checkpoint():
    guard, other = SkipBadSteps(), SkipBadSteps()
    guard.in_a_row, guard.total = 2, 5
    other.load_state_dict(guard.state_dict())
    assert (other.in_a_row, other.total) == (2, 5)


def test_importance_forgets_a_loss_that_is_not_finite():
    times, other = ImportanceTimes(4), ImportanceTimes(4)
    time = torch.tensor([1, 2, 2])
    times.update(time, torch.tensor([1.0, float("nan"), 3.0]))
    other.update(time[[0, 2]], torch.tensor([1.0, 3.0]))
    assert torch.equal(times.square, other.square)
    assert torch.equal(times.count, other.count)
