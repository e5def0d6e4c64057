"""One of two processes of `test_mt_missing.py`: trains on batches that lack an extra, another in each process.

python missing_worker.py RANK FOLDER
"""

import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning import Callback

from mmdiffusion.data.base import Arrays
from tests.helpers import Pictures, build_trainer
from tests.methods.build_extras import SPEC, batch_of, build

LACKS = ("feature", "label")
"""Entry that the batches of each process lack."""
RATE, BATCH = 0.1, 8


def model():
    return build("label", "feature", uncertainty=True, optimizer=partial(torch.optim.SGD, lr=RATE), warmup_steps=0)


class Lacking(Pictures):
    """Sixteen samples, of which each process trains on eight without one entry."""

    @property
    def spec(self):
        return SPEC

    def split(self, name):
        return Arrays(batch_of(2 * BATCH))

    def train_dataloader(self):
        return self._loader(self.split("train"), BATCH)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        assert self.trainer is not None
        lacks = LACKS[self.trainer.global_rank] if self.trainer.training else ""
        return {name: values for name, values in batch.items() if name != lacks}


class Watch(Callback):
    """Rows of the first step, the weights after it, and what was logged."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 1:
            state = {name: values.clone() for name, values in pl_module.state_dict().items()}
            self.first = {"rows": batch["index"], "state": state, "logged": sorted(trainer.logged_metrics)}


def main(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    method, watch = model(), Watch()
    method.hparams.clear()  # closures, which no checkpoint can hold
    settings = {"devices": 2, "strategy": "ddp", "max_steps": 4, "check_val_every_n_epoch": 2}
    trainer = build_trainer(folder, watch, **settings)
    trainer.fit(method, datamodule=Lacking())
    found = {"steps": trainer.global_step, "state": method.state_dict(), "val": trainer.callback_metrics["val/label"]}
    torch.save(watch.first | {"last": found}, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
