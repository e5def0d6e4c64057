"""One of two processes of `test_resume.py`: stops and goes on, skips a bad step, and is killed or outlives that.

python resume_worker.py RANK FOLDER
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from lightning import Callback

from mmdiffusion import cli
from mmdiffusion.callbacks import EMA, LastCheckpoint, SkipBadSteps
from tests.helpers import Oracle, build_trainer
from tests.resuming import METHODS, Data, Fit, differences

TWO = {"devices": 2, "strategy": "ddp"}


class Term(Callback):
    """Tells one of the processes to stop in the middle of its fourth step."""

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.global_step == 3 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped_and_gone_on(name, folder):
    """Whether a training of both processes goes on as if it had not been stopped."""
    num_workers = 2 if name == "cdcd" else 0
    whole = Fit(name, folder / "whole", num_workers=num_workers, **TWO)
    first = Fit(name, folder / "parts", num_workers=num_workers, callbacks=[Term()], **TWO)
    second = Fit(name, folder / "parts", num_workers=num_workers, start=first.last, **TWO)
    return {
        "losses": first.watch.losses + second.watch.losses == whole.watch.losses,
        "differences": differences(second.state(), whole.state()),
        "stopped": len(first.watch.losses),
        "buffers": {key: value for key, value in second.method.named_buffers() if "bank" in key},
    }


class Bad(Oracle):
    """Its loss is no number in one process at the second step; one process is killed at another."""

    def __init__(self, killed_at=None):
        super().__init__()
        self.killed_at = killed_at
        self.make_optimizer = torch.optim.AdamW
        torch.nn.init.ones_(self.weight)

    def losses(self, batch, generator):
        if self.global_step == self.killed_at and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        is_bad = self.global_step == 1 and self.global_rank == 1 and self.killed_at is None
        return {"loss": self.weight.square().sum() * (float("nan") if is_bad else 1)}


def fit(method, folder, guard):
    settings = {"max_steps": 4, "limit_val_batches": 0, "enable_checkpointing": True}
    build_trainer(folder, guard, EMA(), LastCheckpoint(), **settings, **TWO).fit(method, datamodule=Data(0))


def skipped_in_both(folder):
    """What a step does that is bad in one process."""
    method, guard = Bad(), SkipBadSteps()
    fit(method, folder, guard)
    path = folder / "skipped_steps.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {"skipped": guard.total, "weight": method.weight.item(), "lines": lines}


def main(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {name: stopped_and_gone_on(name, folder / name) for name in METHODS}
    found["bad"] = skipped_in_both(folder / "bad")
    torch.save(found, folder / f"{rank}.pt")
    cli.execute = lambda args: fit(Bad(killed_at=2), folder / "killed", SkipBadSteps())
    sys.argv[1:] = ["fit"]
    cli.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
