"""Every shipped configuration runs: two training steps and one validation batch, with the networks it names.

Those that read files of the user's are in `test_full_configs.py`.
"""

import sys

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint

from mmdiffusion.callbacks import EMA, Evaluate, LogSamples, StartFrom
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.methods import CDCD, DiffDis, MTDiffusion
from tests.helpers import ROOT

CONFIGS = ROOT / "configs"
OVERLAYS = CONFIGS / "overlays"
ALL = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent != OVERLAYS)
OF_FILES = {"root", "train"}
"""Settings of data that read files of the user's."""
FULL = [
    path for path in ALL if OF_FILES & {*yaml.safe_load(path.read_text(encoding="utf-8"))["data"].get("init_args", {})}
]
"""Those have tests of their own."""
EXPERIMENTS = [path for path in ALL if path not in FULL]
SMALLER = {
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.limit_val_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
    "data.init_args.batch_size": 16,
    "data.init_args.eval_batch_size": 20,
}


def name(path):
    return str(path.relative_to(CONFIGS))


def build(folder, *configs, **options):
    words = [word for path in configs for word in ("--config", str(path))]
    words += [f"--{key}={value}" for key, value in (SMALLER | options).items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmdiffusion"])
        return MMDiffusionCLI(folder, words, execute=False)


@pytest.fixture(scope="module")
def first_stages(tmp_path_factory):
    """What an experiment must be given beside its own settings: its first stage, trained for a moment."""
    folder = tmp_path_factory.mktemp("shapes-codec")
    cli = build(folder, CONFIGS / "vq_autoencoder" / "shapes.yaml", **{"trainer.limit_val_batches": 0})
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return {"cdcd/shapes.yaml": {"model.init_args.codec.init_args.path": folder}}


@pytest.fixture(scope="module")
def joint_run(tmp_path_factory):
    """The run that a finetuning starts from, trained for a moment."""
    folder = tmp_path_factory.mktemp("digits")
    cli = build(folder, CONFIGS / "mt_diffusion" / "digits.yaml", **{"trainer.limit_val_batches": 0})
    cli.model.steps = 1
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return str(folder)


def test_there_are_experiments():
    assert CONFIGS / "mt_diffusion" / "digits.yaml" in EXPERIMENTS


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=name)
def test_a_header_says_what_it_is(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_it_trains(path, tmp_path, first_stages, joint_run):
    cli = build(tmp_path, path, **first_stages.get(name(path), {}))
    for callback in cli.trainer.callbacks:
        if isinstance(callback, StartFrom):
            callback.path = joint_run
        if isinstance(callback, LogSamples):
            callback.num_samples = 2
    if isinstance(cli.model, CDCD | DiffDis | MTDiffusion):
        cli.model.steps = 1
    before = [parameter.detach().clone() for parameter in cli.model.parameters()]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert cli.trainer.global_step == 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert torch.isfinite(cli.trainer.callback_metrics["val/loss"])
    pairs = zip(before, cli.model.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_it_averages_saves_draws_and_measures(path, tmp_path, first_stages):
    trainer = build(tmp_path, path, **first_stages.get(name(path), {})).trainer
    callbacks = trainer.callbacks
    for kind in (EMA, LogSamples, Evaluate, Checkpoint):
        assert sum(isinstance(callback, kind) for callback in callbacks) == 1, kind
    order = [type(callback) for callback in callbacks]
    assert order.index(EMA) < order.index(LogSamples), "the last grids are drawn after EMA has put its average in place"


@pytest.mark.parametrize("path", sorted(OVERLAYS.glob("*.yaml")), ids=name)
def test_an_overlay_fits_an_experiment(path, tmp_path):
    assert build(tmp_path, CONFIGS / "mt_diffusion" / "digits.yaml", path).model is not None


@pytest.mark.parametrize("experiment", ["cdcd/digits.yaml", "diffdis/digits.yaml", "mt_diffusion/digits.yaml"])
def test_the_small_overlay_makes_every_method_small(experiment, tmp_path):
    full = build(tmp_path, CONFIGS / experiment).model
    small = build(tmp_path, CONFIGS / experiment, OVERLAYS / "small.yaml").model
    sizes = [sum(weight.numel() for weight in method.parameters()) for method in (full, small)]
    assert small.steps == 2
    assert sizes[1] < 0.3 * sizes[0]
