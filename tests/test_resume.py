"""Two steps and two more are four, with the same data in the same order."""

from functools import partial

import pytest
import torch

from mmdiffusion.callbacks import EMA, LastCheckpoint
from tests.helpers import Pictures, build_method, build_trainer, command, fit_run, weights


class Watched:
    """What a fit leaves: noise and loss of each step, weights, the average's count and the learning rate."""

    def __init__(self, folder, max_steps, ckpt_path=None, **settings):
        make_optimizer = partial(torch.optim.AdamW, lr=1e-2)
        method = build_method(optimizer=make_optimizer, warmup_steps=1)
        method.hparams.clear()  # closures of this test, which no checkpoint can hold
        losses = method.losses
        self.losses, self.noise = [], []

        def watched(batch, generator):
            self.noise.append(generator.initial_seed())
            terms = losses(batch, generator)
            self.losses.append(terms["loss"].item())
            return terms

        method.losses = watched
        self.ema = EMA()
        saver = LastCheckpoint()
        defaults = {"max_steps": max_steps, "limit_val_batches": 0, "enable_checkpointing": True}
        trainer = build_trainer(folder, self.ema, saver, **defaults | settings)
        # the schedule of every run ends at step 8, wherever the run itself ends
        trainer.__class__ = type("Planned", (type(trainer),), {"estimated_stepping_batches": 8})
        trainer.fit(method, datamodule=Pictures(), ckpt_path=ckpt_path)
        self.weights = weights(method)
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate_grad_batches": 2, "max_epochs": -1}], ids=["plain", "accumulated"]
)
def test_two_and_two_steps_are_four(tmp_path, settings):
    whole = Watched(tmp_path / "whole", 4, **settings)
    first = Watched(tmp_path / "first", 2, **settings)
    second = Watched(tmp_path / "second", 4, ckpt_path=tmp_path / "first" / "checkpoints" / "last.ckpt", **settings)
    assert first.noise + second.noise == whole.noise
    assert first.losses + second.losses == whole.losses
    assert second.ema.num_updates == whole.ema.num_updates == 4
    assert second.rate == whole.rate
    for name, weight in whole.weights.items():
        assert torch.equal(second.weights[name], weight), name
    for name, weight in whole.checkpoint["ema"]["raw"].items():
        assert torch.equal(second.checkpoint["ema"]["raw"][name], weight), name


def test_a_run_goes_on_from_the_command_line(tmp_path):
    fit_run(tmp_path, "--data.init_args.batch_size", "600")  # two steps are an epoch
    options = ["--ckpt_path", tmp_path / "run" / "checkpoints" / "last.ckpt", "--trainer.max_steps", "4"]
    status, _, err = command("fit", "-c", tmp_path / "run" / "config.yaml", "--run", tmp_path / "more", *options)
    assert status == 0, err
    checkpoint = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert checkpoint["ema"]["num_updates"] == 4
