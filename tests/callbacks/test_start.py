"""StartFrom: the first weights are the other run's average, and nothing else is."""

import pytest
import torch

from mmdiffusion import load
from mmdiffusion.callbacks import EMA, LastCheckpoint, StartFrom, start
from tests.helpers import Pictures, build_method, build_trainer, check, fit_run, weights


def fitted(folder, *callbacks, method, steps=2, **options):
    trainer = build_trainer(folder, *callbacks, max_steps=steps, limit_val_batches=0, enable_checkpointing=True)
    trainer.fit(method, datamodule=Pictures(), **options)
    return method


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with averaged weights."""
    folder = tmp_path_factory.mktemp("joint")
    fit_run(folder)
    return folder / "run"


def other_than(run):
    """The same model with other weights."""
    method = load(run).train()
    method.hparams.clear()  # closures, which no checkpoint can hold
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1.0)
    return method


class First(EMA):
    """Keeps the weights that training starts with."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self.first = weights(pl_module)
        self.first_average = {name: tensor.clone() for name, tensor in self._average.items()}


def test_training_starts_from_the_average_of_the_other_run(run, tmp_path):
    other = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    first, method = First(0.5), other_than(run)
    fitted(tmp_path, StartFrom(str(run)), first, method=method)
    assert all(torch.equal(first.first[name], other[name]) for name in first.first)
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.first_average.items())
    assert not all(torch.equal(value, first.first[name]) for name, value in weights(method).items())


def test_a_training_that_is_resumed_goes_on_with_its_own(run, tmp_path):
    begun = fitted(tmp_path, StartFrom(str(run)), LastCheckpoint(), method=other_than(run))
    first, last = First(0.5), str(tmp_path / "checkpoints" / "last.ckpt")
    fitted(tmp_path / "again", StartFrom(str(run)), first, method=other_than(run), steps=4, ckpt_path=last)
    assert all(torch.equal(first.first[name], value) for name, value in weights(begun).items())


def test_a_run_is_read_once(run, tmp_path, monkeypatch):
    read, paths = start.read_checkpoint, []
    monkeypatch.setattr(start, "read_checkpoint", lambda path: paths.append(path) or read(path))
    callback, method = StartFrom(str(run)), other_than(run)
    check(callback, method)
    callback.setup(build_trainer(tmp_path), method, "fit")
    other = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert paths == [run / "checkpoints" / "last.ckpt"]
    assert all(torch.equal(tensor, other[name]) for name, tensor in method.state_dict().items())


def test_a_test_needs_no_other_run(tmp_path):
    build_trainer(tmp_path, StartFrom("nowhere")).test(build_method(), datamodule=Pictures(), verbose=False)


def test_another_model_is_named(run, tmp_path):
    other = rf"StartFrom has path {run}: its network.denoiser.position is missing, this configuration's \(1, 2, 2, 16\)"
    with pytest.raises(ValueError, match=other):
        fitted(tmp_path, StartFrom(str(run)), method=build_method())


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="StartFrom has path nowhere: expected a finished run"):
        fitted(tmp_path, StartFrom("nowhere"), method=build_method())
