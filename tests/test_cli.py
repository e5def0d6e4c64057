"""The command line as a newcomer meets it: one folder a run."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from mmdiffusion.cli import first_config, split_path
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.runs import experiment_name, new_run
from tests.helpers import assert_clear, command, fit_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `tiny.yaml` and a finished `run`."""
    folder = tmp_path_factory.mktemp("cli")
    fit_run(folder)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# A run ---------------------------------------------------------------------------------------------------------


def test_fit_fills_the_run_folder(folder):
    names = set(contents(folder / "run"))
    grids = {f"samples/step-000002-{kind}.png" for kind in ("conditional", "joint")}
    assert {"config.yaml", "checkpoints/last.ckpt", "metrics.csv"} | grids <= names
    assert not {name for name in names if "lightning_logs" in name or "hparams" in name}
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "train/mse", "train/label", "val/loss", "step"} <= set(rows[0].split(","))
    assert len(rows) > 2


def test_test_needs_the_run_only(folder):
    status, out, err = command("test", "--run", folder / "run")
    assert status == 0, err
    figures = json.loads((folder / "run" / "metrics.json").read_text())
    assert set(figures) == {"classify_accuracy", "judged_accuracy[digits-svm]"}
    assert figures["judged_accuracy[digits-svm]"]["conditional"]["num_samples"] == 20
    assert figures["judged_accuracy[digits-svm]"]["real"]["value"] > 0.95
    assert figures["classify_accuracy"]["classify"]["num_samples"] == 360
    assert "classify_accuracy" in out


def test_predict_needs_the_run_only(folder):
    status, _, err = command("predict", "--run", folder / "run")
    assert status == 0, err
    paths = sorted((folder / "run" / "samples" / "predict").iterdir())
    assert len(paths) == 360
    assert all(re.fullmatch(r"\d{5}-label-\d\.png", path.name) for path in paths)
    with Image.open(paths[0]) as image:
        assert image.size == (8, 8)


def test_validate_needs_the_run_only(folder):
    status, out, err = command("validate", "--run", folder / "run")
    assert status == 0, err
    assert "val/loss" in out


def test_the_commands_leave_config_and_checkpoint_alone(folder):
    kept = ["config.yaml", "checkpoints/last.ckpt", "metrics.csv"]
    before = contents(folder / "run")
    for name in ("validate", "test"):
        assert command(name, "--run", folder / "run")[0] == 0
    assert [contents(folder / "run")[name] for name in kept] == [before[name] for name in kept]


def test_the_config_of_a_run_starts_the_same_run(folder, tmp_path):
    status, _, err = command("fit", "-c", folder / "run" / "config.yaml", "--run", tmp_path / "again")
    assert status == 0, err
    first, second = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (folder / "run", tmp_path / "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_never_overwritten(folder):
    before = contents(folder)
    status, _, err = command("fit", "-c", folder / "tiny.yaml", "--run", folder / "run")
    assert status == 2
    assert_clear(err, str(folder / "run"), "never overwritten")
    assert contents(folder) == before


def test_print_config_can_be_read_back(folder, tmp_path):
    status, out, _ = command("fit", "-c", folder / "tiny.yaml", "--run", tmp_path / "run", "--print_config")
    assert status == 0
    assert not (tmp_path / "run").exists()
    printed = yaml.safe_load(out)
    assert printed["model"]["init_args"]["patch_size"] == 4
    (tmp_path / "printed.yaml").write_text(out)
    status, again, _ = command("fit", "-c", tmp_path / "printed.yaml", "--print_config")
    assert status == 0
    assert yaml.safe_load(again) == printed


def test_a_later_config_and_the_command_line_override(folder, tmp_path):
    (tmp_path / "overlay.yaml").write_text("model: {init_args: {steps: 2, guidance: 0.5}}\n")
    options = ["-c", folder / "tiny.yaml", "-c", tmp_path / "overlay.yaml", "--model.init_args.guidance", "0.7"]
    status, out, _ = command("fit", *options, "--print_config")
    assert status == 0
    settings = yaml.safe_load(out)["model"]["init_args"]
    assert (settings["steps"], settings["guidance"], settings["patch_size"]) == (2, 0.7, 4)


def test_one_seed_sets_weights_noise_and_order(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmdiffusion"])
        words = ["-c", str(folder / "tiny.yaml"), "--seed_everything", "7"]
        cli = MMDiffusionCLI(folder / "unused", words, execute=False)
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)
    assert not (folder / "unused").exists()


def test_another_logger_logs_beside_ours(folder, tmp_path):
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}/other}}}}"
    status, _, err = command("fit", "-c", folder / "tiny.yaml", "--run", tmp_path / "run", "--trainer.logger", logger)
    assert status == 0, err
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert list((tmp_path / "other").rglob("metrics.csv"))


# Names of runs -------------------------------------------------------------------------------------------------


def test_runs_are_numbered_by_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = "somewhere/configs/mt_diffusion/digits.yaml"
    assert new_run(None, config) == Path("runs/mt_diffusion/digits/0")
    for name in ("0", "7", "notes"):
        (tmp_path / "runs/mt_diffusion/digits" / name).mkdir(parents=True)
    assert new_run(None, config) == Path("runs/mt_diffusion/digits/8")
    assert new_run(None, None) == Path("runs/unnamed/0")
    assert not (tmp_path / "runs/mt_diffusion/digits/8").exists()


def test_an_empty_folder_may_become_a_run(tmp_path):
    assert new_run(str(tmp_path), None) == tmp_path
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match=r"--run is .*never overwritten"):
            new_run(str(taken), None)


def test_words_of_the_command_line():
    assert split_path(["fit", "--run", "a", "-c", "b"]) == ("a", ["fit", "-c", "b"])
    assert split_path(["fit", "--run=a"]) == ("a", ["fit"])
    assert split_path(["fit"]) == (None, ["fit"])
    assert first_config(["-c", "a.yaml", "--config", "b.yaml"]) == "a.yaml"
    assert first_config(["--x", "1", "--config=b.yaml"]) == "b.yaml"
    assert first_config(["-ca.yaml", "-c", "b.yaml"]) == first_config(["-c=a.yaml"]) == "a.yaml"
    assert first_config(["--x", "1"]) is None
    assert first_config([]) is None
    assert experiment_name("configs/mt_diffusion/digits.yaml") == "mt_diffusion/digits"


# Other checkpoints ---------------------------------------------------------------------------------------------


def fake_checkpoint(path, contents):
    torch.save(contents, path)
    return path


@pytest.mark.parametrize("name", ["test", "fit"])
def test_a_checkpoint_of_another_method_is_refused(folder, tmp_path, name):
    path = fake_checkpoint(tmp_path / "other.ckpt", {"hyper_parameters": {"_class_path": "mmdiffusion.methods.Other"}})
    options = ["--run", folder / "run"] if name == "test" else ["-c", folder / "tiny.yaml", "--run", tmp_path / "run"]
    before = contents(folder / "run")
    status, _, err = command(name, *options, "--ckpt_path", path)
    assert status == 2
    assert_clear(err, str(path), "mmdiffusion.methods.Other", "MTDiffusion")
    assert contents(folder / "run") == before
    assert not (tmp_path / "run").exists()


def test_another_checkpoint_of_the_method_is_taken(folder, tmp_path):
    contents = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    contents["state_dict"]["network.denoiser.out.bias"] += 10
    torch.save(contents, tmp_path / "changed.ckpt")
    own = command("validate", "--run", folder / "run")[1]
    status, other, err = command("validate", "--run", folder / "run", "--ckpt_path", tmp_path / "changed.ckpt")
    assert status == 0, err
    assert other != own


def test_without_arguments_the_usage_is_shown():
    status, out, _ = command()
    assert status == 0
    assert out.startswith("usage: mmdiffusion")
    assert command("--help")[1] == out


@pytest.mark.parametrize("name", ["export", "report"])
def test_a_command_about_a_finished_run_explains_itself(name):
    status, out, _ = command(name, "--help")
    assert status == 0
    assert f"mmdiffusion {name} --run FOLDER" in out
