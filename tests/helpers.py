"""Small models, data and runs that several test files build on."""

import contextlib
import io
import json
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer

from mmdiffusion.__main__ import main
from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.data.base import Arrays, DataModule
from mmdiffusion.diffusion import CosineSchedule, SaturatingDrift
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.extras import Extra
from mmdiffusion.metrics import Judge
from mmdiffusion.nn import Denoiser, Level, MiddleHead, TableEncoder
from mmdiffusion.runs import new_run
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import ImageSpec, LabelSpec

ROOT = Path(__file__).resolve().parents[1]
T = 50
SPEC = {"image": ImageSpec(channels=1, size=8, num_levels=17), "label": LabelSpec(10)}


# A method ------------------------------------------------------------------------------------------------------


def build_method(**changes: Any) -> MTDiffusion:
    """The smallest MT-Diffusion of images and labels, its weights the same at every call and none of them zero.

    Args:
        changes: Settings of the method, and those of the label.
    """
    label: dict[str, Any] = {
        "encoder": TableEncoder,
        "head": MiddleHead,
        "drift": SaturatingDrift(strength=0.5, time_scale=0.05),
    }
    label |= {field.name: changes.pop(field.name) for field in fields(Extra) if field.name in changes}
    settings: dict[str, Any] = {
        "spec": SPEC,
        "denoiser": partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32, positions="learned"),
        "schedule": CosineSchedule(T),
        "extras": {"label": Extra(**label)},
        "patch_size": 4,
        "steps": 4,
        "warmup_steps": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = MTDiffusion(**settings | changes)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build_batch(size: int = 16, seed: int = 0) -> dict:
    image = torch.rand(size, 1, 8, 8, generator=generator(seed)) * 2 - 1
    return {"image": image, "label": torch.arange(size) % 10, "index": torch.arange(size)}


# Data whose label can be read off the picture ------------------------------------------------------------------


def picture(label: torch.Tensor) -> torch.Tensor:
    """Black images with one white pixel, whose place is the label."""
    image = torch.full((len(label), 64), -1.0)
    image[torch.arange(len(label)), label] = 1
    return image.reshape(-1, 1, 8, 8)


class Pictures(DataModule):
    """Pictures of labels, a few noisy ones a split; training batches come in order."""

    def __init__(self, batch_size: int = 8, num_train: int = 16, num_test: int = 30):
        super().__init__(batch_size, eval_batch_size=10, seed=0)
        self.sizes = {"train": num_train, "val": 10, "test": num_test}

    @property
    def spec(self):
        return SPEC

    def split(self, name):
        label = torch.arange(self.sizes[name]) % 10
        noise = torch.rand(len(label), 1, 8, 8, generator=generator()) * 0.2
        return Arrays({"image": (picture(label) + noise).clamp(-1, 1), "label": label})

    def train_dataloader(self):
        return self._loader(self.split("train"), self.batch_size)


class PixelJudge(Judge):
    """Reads the label of a picture without error."""

    name = "pixel"

    def fit(self, images, labels):
        pass

    def predict(self, images):
        return images.flatten(1)[:, :10].argmax(1)

    def signature(self):
        return self.name


class Oracle(Method):
    """Draws perfect pictures and classifies without error."""

    def __init__(self):
        super().__init__(
            torch.optim.SGD, warmup_steps=0, seed=0, givable=("image", "label"), drawable=("image", "label")
        )
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batch_sizes: list[int] = []

    def losses(self, batch, generator):
        return {"loss": self.weight.square().sum()}

    def sample(self, condition, *, seeds, drawn=None, steps=None, guidance=None):
        self.batch_sizes.append(len(seeds))
        index = torch.tensor(seeds)
        label = condition.get("label", index * 7 % 10)
        noise = SampleNoise(0, seeds).uniform((1, 8, 8)) * 0.2
        assert isinstance(label, torch.Tensor)
        return {"image": picture(label) + noise, "label": label, "index": index}

    def protocol(self):
        return {"sampler": "oracle"}

    def classify(self, batch):
        assert "label" not in batch, "a classifier is handed no label"
        return PixelJudge().predict(batch["image"]).eq(torch.arange(10)[:, None]).T.double()


# Trainers and runs ---------------------------------------------------------------------------------------------

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


def check(callback: CheckedCallback, method: LightningModule, data: DataModule | None = None) -> None:
    """Check a callback as the command line does."""
    callback.check(Trainer(**QUIET), method, data)


def build_trainer(folder: Path, *callbacks: Any, **settings: Any) -> Trainer:
    defaults = QUIET | {"enable_checkpointing": False, "default_root_dir": folder, "callbacks": list(callbacks)}
    return Trainer(**defaults | settings)


def weights(module: LightningModule) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


DRAWS: Any = {"conditional": {"given": ["label"]}, "joint": {"given": []}}
CONFIG: Any = {
    "seed_everything": 0,
    "trainer": {
        **{key: value for key, value in QUIET.items() if key != "logger"},
        "max_steps": 2,
        "limit_val_batches": 1,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "callbacks": [
            {"class_path": "EMA"},
            {"class_path": "LastCheckpoint"},
            {"class_path": "LogSamples", "init_args": {"draws": DRAWS, "num_samples": 20}},
            {
                "class_path": "Evaluate",
                "init_args": {
                    "draws": DRAWS,
                    "num_samples": 20,
                    "metrics": [
                        {"class_path": "ClassificationAccuracy"},
                        {"class_path": "JudgedAccuracy", "init_args": {"judge": {"class_path": "SVMJudge"}}},
                    ],
                },
            },
        ],
    },
    "model": {
        "class_path": "MTDiffusion",
        "init_args": {
            "denoiser": {"class_path": "Denoiser", "init_args": {"levels": [{"width": 16, "depth": 1, "heads": 2}]}},
            "schedule": {"class_path": "CosineSchedule", "init_args": {"num_steps": 50}},
            "extras": {
                "label": {
                    "encoder": {"class_path": "TableEncoder"},
                    "head": {"class_path": "MiddleHead"},
                    "drift": {"class_path": "SaturatingDrift"},
                },
            },
            "patch_size": 4,
            "steps": 3,
            "read_times": [0.1],
            "warmup_steps": 1,
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 16}},
}


def assert_clear(err: str, *words: str) -> None:
    """One short message with these words, and nothing a newcomer has to read past."""
    message = err[err.find("mmdiffusion: error:") :]
    assert message.startswith("mmdiffusion: error:"), err
    for word in words:
        assert word in message
    assert "Traceback" not in err
    assert "Namespace(" not in err
    assert "NestedArg" not in err
    assert "Union subtypes" not in err
    assert len(message) < 400
    assert message.count("\n") <= 5


def write_config(path: Path, config: Any = CONFIG) -> Path:
    """Write a configuration; JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def fit_run(folder: Path, *args: str) -> MMDiffusionCLI:
    """Fit the tiny configuration into `folder/run`."""
    config = str(write_config(folder / "tiny.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmdiffusion"])
        return MMDiffusionCLI(new_run(str(folder / "run"), config), ["fit", "-c", config, *args])


def command(*args: object) -> tuple[int | str | None, str, str]:
    """Run the command line in this process: exit status, standard output, standard error."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["mmdiffusion", *map(str, args)])
        patch.setattr("mmdiffusion.__main__.end_when_asked", lambda: None)  # signals are for the tests' own process
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()
