"""One of two processes of `test_sharding.py`: trains with weights in shards, and with whole weights.

python sharding_worker.py RANK FOLDER
"""

import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from mmdiffusion.callbacks import Compile, GradientShare, LogSamples, SkipBadSteps
from mmdiffusion.callbacks.draws import Draw
from mmdiffusion.optimizers import MuonAdamW
from mmdiffusion.sharding import Shards
from tests.helpers import build_method, build_trainer
from tests.methods import build_diffdis
from tests.resume_worker import Bad
from tests.resuming import ADAM, METHODS, Data, Fit

METHODS["diffdis"] = lambda: build_diffdis.build(num_earlier=11, optimizer=ADAM)
METHODS["mt_diffusion"] = lambda: build_method(optimizer=ADAM, uncertainty=True)
CLIP = 0.1
"""Norm that every gradient of `mt_diffusion` is above: the clipping of shards needs the norm of the whole."""


def num_kept(fit):
    """Numbers that this process keeps: weights, and what the optimizer knows of them."""
    weights = [parameter for parameter in fit.method.parameters() if parameter.requires_grad]
    states = [value for state in fit.trainer.optimizers[0].state.values() for value in state.values() if value.ndim]
    return [
        sum((one.to_local() if isinstance(one, DTensor) else one).numel() for one in tensors)
        for tensors in (weights, states)
    ]


def trained(name, folder, strategy, **settings):
    """One training, whole or to a crash, or on from there."""
    if name == "mt_diffusion":
        grids = LogSamples({"joint": Draw([])}, num_samples=4, every_n_steps=6)
        settings |= {"callbacks": [grids], "gradient_clip_val": CLIP, "accumulate_grad_batches": 2, "max_steps": 8}
    return Fit(name, folder, devices=2, strategy=strategy, **settings)


def compared(name, folder):
    """What trainings with whole weights and in shards leave."""
    fits = {"whole": trained(name, folder / "whole", "ddp"), "shards": trained(name, folder / "shards", Shards())}
    states = {kind: fit.state() | {"validations": torch.tensor(fit.watch.validations)} for kind, fit in fits.items()}
    return states | {"kept": {kind: num_kept(fit) for kind, fit in fits.items()}}


def gone_on(name, folder):
    """What a training leaves that was stopped in shards and goes on with whole weights, and with shards."""
    first = trained(name, folder, Shards(), crash_after=5)
    fits = {
        "whole": trained(name, folder / "whole", "ddp", start=first.last),
        "shards": trained(name, folder, Shards(), start=first.last),
    }
    return {kind: fit.state() for kind, fit in fits.items()} | {"batches": len(first.watch.losses)}


def skipped(folder, strategy):
    """How many steps were skipped, of which one is bad in one process, and the weight afterwards."""
    method, guard = Bad(), SkipBadSteps()
    trainer = build_trainer(folder, guard, max_steps=4, limit_val_batches=0, devices=2, strategy=strategy)
    trainer.fit(method, datamodule=Data(0))
    weight = method.weight.detach()
    return guard.total, (weight.full_tensor() if isinstance(weight, DTensor) else weight).item()


def refused(folder):
    """What is said of trainings that have no use for shards."""
    said = []
    for optimizer, callbacks in (
        (partial(MuonAdamW, lr=1e-2), []),
        (ADAM, [Compile()]),
        (ADAM, [GradientShare(["mse"])]),
    ):
        trainer = build_trainer(folder, *callbacks, max_steps=1, devices=2, strategy=Shards())
        try:
            trainer.fit(build_method(optimizer=optimizer), datamodule=Data(0))
        except ValueError as error:
            said.append(str(error))
    return said


def main(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {name: compared(name, folder / name) for name in METHODS}
    found |= {"gone on": gone_on("mt_diffusion", folder / "parts"), "refused": refused(folder / "refused")}
    found["bad"] = [skipped(folder / "bad", strategy) for strategy in ("ddp", Shards())]
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
