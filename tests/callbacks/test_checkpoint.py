"""The last checkpoint is that of the last step, is whole, and is written when a training is told to stop."""

import logging
import os
import signal

import pytest
import torch
from lightning import Callback

from mmdiffusion.callbacks import LastCheckpoint
from mmdiffusion.signals import Signals, Stopped
from tests.helpers import Oracle, Pictures, build_trainer


def fit(folder, *callbacks, method=None, **settings):
    defaults = {"enable_checkpointing": True, "max_steps": 5, "limit_val_batches": 0}
    trainer = build_trainer(folder, *callbacks, **defaults | settings)
    trainer.fit(method or Oracle(), datamodule=Pictures())
    return trainer


def steps(folder):
    return {
        path.name: torch.load(path, weights_only=True)["global_step"] for path in (folder / "checkpoints").iterdir()
    }


@pytest.mark.parametrize(("every", "num_steps"), [(2, 5), (100, 3), (2, 4)])
def test_it_holds_the_last_step(tmp_path, every, num_steps):
    fit(tmp_path, LastCheckpoint(every), max_steps=num_steps)
    previous = {} if every > num_steps else {"previous.ckpt": num_steps - 1 if num_steps % every else num_steps - every}
    assert steps(tmp_path) == {"last.ckpt": num_steps} | previous


def test_it_is_written_on_the_way(tmp_path):
    """A run that is killed leaves the last multiple of the interval."""

    class Killed(Oracle):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 5:
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, LastCheckpoint(2), method=Killed(), max_steps=9)
    assert steps(tmp_path) == {"last.ckpt": 4, "previous.ckpt": 2}


class Signal(Callback):
    """Sends this process a signal in the middle of a batch."""

    def __init__(self, number, batch=2):
        self.number, self.batch = number, batch

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.fit_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_between_two_steps(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"after step 3, as {number.name} asked; `mmdiffusion fit --run {tmp_path}` goes"):
        fit(tmp_path, Signal(number), LastCheckpoint(100))
    assert steps(tmp_path) == {"last.ckpt": 3}
    assert signal.getsignal(number) == before


def test_a_signal_before_the_first_step_is_answered_after_it(tmp_path):
    class Checked(Oracle):
        def validation_step(self, batch, batch_idx):
            if self.trainer.sanity_checking:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="after step 1, as SIGTERM asked"):
        fit(tmp_path, LastCheckpoint(100), method=Checked(), limit_val_batches=1, num_sanity_val_steps=1)
    assert steps(tmp_path) == {"last.ckpt": 1}
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_that_was_stopped_is_not_stopped_again(tmp_path):
    last = LastCheckpoint(100)
    with pytest.raises(Stopped):
        fit(tmp_path, Signal(signal.SIGTERM), last)
    fit(tmp_path, last, limit_val_batches=1, num_sanity_val_steps=1)
    assert steps(tmp_path)["last.ckpt"] == 5


def test_a_signal_waits_until_gradients_are_used(tmp_path):
    with pytest.raises(Stopped, match="after step 2"):
        fit(tmp_path, Signal(signal.SIGTERM, batch=2), LastCheckpoint(100), accumulate_grad_batches=2)
    assert steps(tmp_path) == {"last.ckpt": 2}


def test_a_signal_before_the_last_step_changes_nothing(tmp_path):
    fit(tmp_path, Signal(signal.SIGTERM, batch=4), LastCheckpoint(100))
    assert steps(tmp_path) == {"last.ckpt": 5}


def test_a_second_signal_is_not_held_back(caplog):
    signals = Signals()
    signals.listen()
    try:
        with caplog.at_level(logging.WARNING):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.name == "SIGINT"
        assert "stopping after this step" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signals.forget()


def test_a_full_disk_ends_the_training_and_leaves_the_last_good_one(tmp_path, monkeypatch):
    class Full(Oracle):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 3:
                monkeypatch.setattr(torch, "save", full)

    def full(contents, file):
        file.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        finally:  # as PyTorch does when it closes a file that it could not write
            raise RuntimeError("unexpected pos 159552 vs 159440")

    with pytest.raises(ValueError, match=r"last.ckpt cannot be written: .*No space left.*last good one is .*last.ckpt"):
        fit(tmp_path, LastCheckpoint(2), method=Full())
    assert steps(tmp_path) == {"last.ckpt": 2}
