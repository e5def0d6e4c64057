"""Compiled training steps: what is compiled, when it is used, and what is said where nothing can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdiffusion.callbacks import EMA, Compile, LogSamples
from mmdiffusion.callbacks.compile import check_compiler
from mmdiffusion.experiment import MMDiffusionCLI
from tests.callbacks.compile_worker import STEPS
from tests.helpers import ROOT, Oracle, Pictures, build_trainer, command, write_config

OVERLAY = ROOT / "configs" / "overlays" / "compile.yaml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four trainings of three steps, each step with a validation behind it."""
    folder = tmp_path_factory.mktemp("compile")
    worker = Path(__file__).with_name("compile_worker.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, worker, folder], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "made.pt", weights_only=True)


def test_training_steps_are_compiled_whole_and_nothing_else(made):
    assert made["plain"]["calls"] == []
    assert made["compiled"]["calls"] == [True] * STEPS, "validation, without gradients, runs what is written"


@pytest.mark.parametrize("name", ["compiled", "twice", "selective"])
def test_compiled_steps_train_the_same_weights(made, name):
    for part, weight in made["plain"]["weights"].items():
        torch.testing.assert_close(made[name]["weights"][part], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["twice", "selective"])
def test_what_runs_twice_is_compiled_whole(made, name):
    assert made[name]["calls"] == [True] * STEPS


def test_what_others_compile_is_compiled_afterwards(made):
    assert len(made["later"]["calls"]) == 1


def test_nothing_to_compile_is_refused(tmp_path):
    trainer = build_trainer(tmp_path, Compile(), max_steps=1)
    with pytest.raises(ValueError, match="Oracle has no Denoiser: expected one to compile"):
        trainer.fit(Oracle(), datamodule=Pictures(8))


def test_a_missing_compiler_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = write_config(tmp_path / "tiny.yaml")
    status, _, said = command("fit", "-c", config, "-c", OVERLAY, "--run", tmp_path / "run")
    assert status == 2
    assert "no-such-compiler is not on the PATH: expected a C++ compiler" in said
    assert "CXX" in said
    assert not (tmp_path / "run").exists()


def test_a_compiler_may_be_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    with pytest.raises(ValueError, match="compiler is not on the PATH"):
        check_compiler(CPU)
    check_compiler(torch.device("cuda"))
    (tmp_path / "compiler").touch(mode=0o755)
    check_compiler(CPU)


def test_the_overlay_adds_to_the_callbacks(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mmdiffusion"])
    words = ["--config", str(write_config(tmp_path / "tiny.yaml")), "--config", str(OVERLAY)]
    cli = MMDiffusionCLI(tmp_path, words, execute=False)
    kinds = [type(callback) for callback in cli.trainer.callbacks]
    assert [kinds.count(kind) for kind in (EMA, LogSamples, Compile)] == [1, 1, 1]
