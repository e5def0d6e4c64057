"""The averaged weights: their recursion, where they stand in for the raw ones, and what a checkpoint holds."""

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from mmdiffusion.callbacks import EMA, LastCheckpoint
from tests.helpers import build_trainer, weights

DECAYS = [0.1, 2 / 11, 0.25, 4 / 13, 5 / 14]
"""(1 + n) / (10 + n) for n = 0..4."""


class Toy(LightningModule):
    """A weight pulled towards changing numbers, with an integer buffer and a frozen parameter beside it."""

    count: torch.Tensor

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([5.0, -3.0]))
        self.frozen = torch.nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.raw: list[torch.Tensor] = []
        self.in_validation: list[torch.Tensor] = []

    def training_step(self, batch, batch_idx):
        self.count += 1
        (numbers,) = batch
        return (self.weight - numbers).square().sum()

    def on_before_zero_grad(self, optimizer):
        self.raw.append(self.weight.detach().clone())

    def validation_step(self, batch, batch_idx):
        self.in_validation.append(self.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.arange(20.0)), batch_size=1)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(1)))


class History(Callback):
    """Raw weights after each batch; it stands before EMA."""

    def __init__(self):
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(pl_module.weight.detach().clone())


def averages(start, history, decay=0.999):
    average, result = start, []
    for warm, raw in zip(DECAYS, history, strict=False):
        share = min(decay, warm)
        average = share * average + (1 - share) * raw
        result.append(average)
    return result


def fitted(folder, *callbacks, **settings):
    toy = Toy()
    defaults = {"max_steps": 5, "limit_val_batches": 0}
    build_trainer(folder, *callbacks, **defaults | settings).fit(toy)
    return toy


@pytest.mark.parametrize("decay", [0.999, 0.2])
def test_five_steps_by_hand(tmp_path, decay):
    history = History()
    toy = fitted(tmp_path, history, EMA(decay))
    expected = averages(torch.tensor([5.0, -3.0]), history.weights, decay)
    torch.testing.assert_close(toy.weight.detach(), expected[-1])
    assert not torch.equal(toy.weight, history.weights[-1])


def test_without_warmup_the_decay_is_constant():
    assert [EMA(0.9, warmup=False).decay_at(n) for n in (0, 100)] == [0.9, 0.9]
    assert [EMA(0.9).decay_at(n) for n in (0, 1, 10_000)] == [0.1, 2 / 11, 0.9]


def test_accumulated_batches_count_once(tmp_path):
    history, ema = History(), EMA()
    toy = fitted(tmp_path, history, ema, max_steps=3, accumulate_grad_batches=2)
    assert len(history.weights) == 6
    assert ema.num_updates == 3
    torch.testing.assert_close(toy.weight.detach(), averages(torch.tensor([5.0, -3.0]), history.weights[1::2])[-1])


def test_only_trained_parameters_are_averaged(tmp_path):
    toy = fitted(tmp_path, EMA())
    assert toy.count.item() == 5
    assert toy.count.dtype == torch.int64
    assert toy.frozen.item() == 7


def test_validation_sees_the_average_and_the_raw_weights_come_back(tmp_path):
    plain, averaged = History(), History()
    fitted(tmp_path, plain)
    toy = fitted(tmp_path, averaged, EMA(), limit_val_batches=1, val_check_interval=2)
    assert torch.equal(torch.stack(averaged.weights), torch.stack(plain.weights)), "validation changes no training"
    expected = averages(torch.tensor([5.0, -3.0]), averaged.weights)
    torch.testing.assert_close(toy.in_validation, [expected[1], expected[3]])


def checkpoint_of(folder, **settings):
    history = History()
    saver = ModelCheckpoint(folder, save_last=True, **settings)
    toy = fitted(folder, history, EMA(), saver, enable_checkpointing=True)
    return toy, history, torch.load(folder / "last.ckpt", weights_only=True)


def test_a_checkpoint_holds_the_average_and_the_raw_weights_beside_it(tmp_path):
    _, history, checkpoint = checkpoint_of(tmp_path, every_n_train_steps=5)
    average = averages(torch.tensor([5.0, -3.0]), history.weights)[-1]
    torch.testing.assert_close(checkpoint["state_dict"]["weight"], average)
    assert checkpoint["state_dict"]["count"].item() == 5
    assert checkpoint["ema"]["num_updates"] == 5
    assert list(checkpoint["ema"]["raw"]) == ["weight"]
    assert torch.equal(checkpoint["ema"]["raw"]["weight"], history.weights[-1])


def test_a_checkpoint_of_the_end_of_training_keeps_the_raw_weights(tmp_path):
    """`save_last` writes when training stops before the first checkpoint was due."""
    _, history, checkpoint = checkpoint_of(tmp_path, every_n_train_steps=100)
    assert checkpoint["global_step"] == 5
    average = averages(torch.tensor([5.0, -3.0]), history.weights)[-1]
    torch.testing.assert_close(checkpoint["state_dict"]["weight"], average)
    assert torch.equal(checkpoint["ema"]["raw"]["weight"], history.weights[-1])


def test_a_checkpoint_written_after_fit_keeps_the_raw_weights(tmp_path):
    history = History()
    toy = fitted(tmp_path, history, EMA())
    toy.trainer.save_checkpoint(tmp_path / "after.ckpt")
    checkpoint = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert torch.equal(checkpoint["ema"]["raw"]["weight"], history.weights[-1])


def test_a_checkpoint_of_validation_keeps_the_raw_weights(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_epochs=1, save_top_k=-1)
    history = History()
    fitted(tmp_path, history, EMA(), saver, enable_checkpointing=True, limit_val_batches=1, val_check_interval=2)
    (first, *_) = sorted(tmp_path.glob("step=2*.ckpt"))
    checkpoint = torch.load(first, weights_only=True)
    torch.testing.assert_close(
        checkpoint["state_dict"]["weight"], averages(torch.tensor([5.0, -3.0]), history.weights)[1]
    )
    assert torch.equal(checkpoint["ema"]["raw"]["weight"], history.weights[1])


def test_resume_goes_on_from_raw_weights_and_average(tmp_path):
    history, resumed = History(), History()
    whole = fitted(tmp_path, history, EMA(), max_steps=4, limit_train_batches=2, max_epochs=2)
    settings = {"enable_checkpointing": True, "limit_val_batches": 0, "limit_train_batches": 2}

    fitted(tmp_path, EMA(), LastCheckpoint(), **settings | {"max_steps": 2})
    again = Toy()
    trainer = build_trainer(tmp_path / "again", resumed, EMA(), LastCheckpoint(), **settings | {"max_steps": 4})
    trainer.fit(again, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(torch.stack(resumed.weights), torch.stack(history.weights[2:]))
    assert torch.equal(again.weight, whole.weight)


def test_other_commands_use_the_average_as_it_stands_in_the_checkpoint(tmp_path):
    toy, _, checkpoint = checkpoint_of(tmp_path, every_n_train_steps=5)
    average = checkpoint["state_dict"]["weight"]
    assert torch.equal(toy.weight, average)
    other = Toy()
    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=5)
    trainer = build_trainer(tmp_path, EMA(), saver, enable_checkpointing=True)
    trainer.validate(other, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert torch.equal(other.in_validation[0], average)
    assert torch.equal(other.weight, average)


def test_validate_after_fit_uses_the_average(tmp_path):
    history = History()
    toy = fitted(tmp_path, history, EMA(), limit_val_batches=1)
    average = weights(toy)["weight"]
    toy.trainer.validate(toy, verbose=False)
    assert torch.equal(toy.in_validation[-1], average)
    assert torch.equal(toy.weight, average)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_named(decay):
    with pytest.raises(ValueError, match=rf"decay is {decay}: expected 0 up to"):
        EMA(decay)
