"""Compile: training steps through torch.compile."""

import os
import shutil
import sys

import torch
from lightning import LightningModule, Trainer

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.data.base import DataModule
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.sharding import Shards
from mmdiffusion.types import Batch


class Compile(CheckedCallback):
    """Compiles the denoiser in place, for training steps alone.

    The names of its weights stay. Validation, samples and tests run as they are written: each of them calls the
    denoiser in its own ways, and every way would be compiled for itself.
    """

    fit_only = True

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check that there is something to compile, and a compiler; see `CheckedCallback`."""
        if not denoisers(method):
            raise ValueError(
                f"the callback Compile is set, but {type(method).__name__} has no Denoiser: expected one to compile; "
                "leave the callback out"
            )
        if isinstance(trainer.strategy, Shards):
            raise ValueError(
                "the callback Compile is set, strategy is Shards: expected one of them, as weights are gathered block "
                "by block; leave out configs/overlays/compile.yaml or configs/overlays/fsdp.yaml"
            )
        check_compiler(trainer.strategy.root_device)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile before processes and precision are set up around the model."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        for denoiser in denoisers(pl_module):
            denoiser.compile()
        torch.compiler.set_stance("force_eager")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """From here on what is compiled is used."""
        torch.compiler.set_stance("default")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on what is written."""
        torch.compiler.set_stance("force_eager")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the rest of the program as it was."""
        torch.compiler.set_stance("default")


def denoisers(module: LightningModule) -> list[Denoiser]:
    """What is compiled."""
    return [part for part in module.modules() if isinstance(part, Denoiser)]


def check_compiler(device: torch.device) -> None:
    """Check that what torch.compile makes for a CPU can be built.

    Args:
        device: Where training runs; on others PyTorch brings what it needs, or says what is missing.

    Raises:
        ValueError: naming the compiler that was looked for.
    """
    command = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(command) is None:
        raise ValueError(
            f"{command} is not on the PATH: expected a C++ compiler, which torch.compile needs on a CPU. Install one "
            "(apt-get install g++, xcode-select --install), name it in the environment variable CXX, or leave out the "
            "callback Compile (configs/overlays/compile.yaml)"
        )
