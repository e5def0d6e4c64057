"""Trainings that are stopped and go on, for `test_resume.py` and its two processes."""

import contextlib
import os
import socket
import subprocess
import sys
from functools import partial

import torch
from lightning import Callback

from mmdiffusion.callbacks import EMA, LastCheckpoint
from mmdiffusion.data.files import FileDataModule, Files
from mmdiffusion.methods import Contrast, InterNegatives
from mmdiffusion.optimizers import MuonAdamW
from mmdiffusion.signals import Stopped
from tests.helpers import ROOT, SPEC, build_batch, build_method, build_trainer
from tests.methods import build_diffdis
from tests.methods.test_cdcd import build as build_cdcd
from tests.methods.test_vq_autoencoder import build as build_vq_autoencoder

NUM_ROWS, BATCH = 82, 16
STEPS = 12
"""More than two epochs of five batches on one process, two to each on two."""
WORDS = build_diffdis.WORDS


class Drawn(Files):
    """Pictures that are noise of their draw, so that a wrong place in the data shows."""

    def read(self, row, generator):
        image = torch.rand(1, 8, 8, generator=generator) * 2 - 1
        return {"image": image, "label": row % 10, "caption": f"a small {WORDS[row % 10]}"}


class Data(FileDataModule):
    def __init__(self, num_workers):
        super().__init__(BATCH, 16, num_workers, 0.0, seed=0)

    @property
    def spec(self):
        return SPEC

    def files(self, name):
        return Drawn(NUM_ROWS if name == "train" else 32, 0.0, 0)


ADAM = partial(torch.optim.AdamW, lr=1e-2)
METHODS = {
    "mt_diffusion": lambda: build_method(optimizer=ADAM),
    "cdcd": lambda: build_cdcd(contrasts=[Contrast(InterNegatives(3, bank_size=40), 0.1)], optimizer=ADAM),
    "diffdis": lambda: build_diffdis.build(num_earlier=11, optimizer=partial(MuonAdamW, lr=1e-2)),
    "vq_autoencoder": lambda: build_vq_autoencoder(optimizer=ADAM),
}


class Crash(RuntimeError):  # noqa: N818
    pass


class Watch(Callback):
    """Losses of steps and of validations; ends a training before the batch after some step."""

    def __init__(self, crash_after=None):
        self.crash_after = crash_after
        self.losses, self.validations = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.crash_after:
            raise Crash

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())  # pyright: ignore[reportOptionalSubscript]

    def on_validation_end(self, trainer, pl_module):
        self.validations.append((trainer.global_step, trainer.callback_metrics["val/loss"].item()))


class Fit:
    """One training, from the start or from a checkpoint, to its end or to a crash."""

    def __init__(self, name, folder, *, num_workers=0, start=None, crash_after=None, callbacks=(), **settings):
        self.name, self.method = name, METHODS[name]()
        self.method.hparams.clear()  # closures, which no checkpoint can hold
        self.watch, ema = Watch(crash_after), EMA(0.9)
        defaults = {"max_steps": STEPS, "val_check_interval": 3, "check_val_every_n_epoch": None}
        defaults |= {"enable_checkpointing": True}
        parts = [self.watch, ema, *callbacks, LastCheckpoint(1)]
        self.trainer = build_trainer(folder, *parts, **defaults | settings)
        with contextlib.suppress(Crash, Stopped):
            self.trainer.fit(self.method, datamodule=Data(num_workers), ckpt_path=start)
        self.last = folder / "checkpoints" / "last.ckpt"

    def state(self):
        """All of a checkpoint that has to be equal."""
        contents = torch.load(self.last, weights_only=True)
        return {key: contents[key] for key in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "Data")}

    def samples(self):
        known = build_batch(2) | {"caption": ["a small one", "a small two"]}
        asked = {"diffdis": ("caption",), "vq_autoencoder": ("image",)}.get(self.name, ())
        return self.method.sample({name: known[name] for name in asked}, seeds=range(2))


def differences(found, expected, name=""):
    """Names of the entries of nested dictionaries and lists that differ."""
    if isinstance(expected, torch.Tensor):
        return [] if torch.equal(found, expected) else [name]
    if isinstance(expected, dict | list):
        keys = expected if isinstance(expected, dict) else range(len(expected))
        if len(found) != len(expected):
            return [f"{name}: {len(found)} entries, not {len(expected)}"]
        return [wrong for key in keys for wrong in differences(found[key], expected[key], f"{name}.{key}")]
    return [] if found == expected else [f"{name} is {found}, not {expected}"]


def run_two(worker, folder, timeout):
    """Run a program of the tests as two processes of one group; the processes, ended, and what they wrote to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / worker, str(rank), str(folder)],
            env=os.environ | place | {"LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        return processes, [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
