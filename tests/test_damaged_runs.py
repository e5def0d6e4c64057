"""Whatever reads a run whose last checkpoint is damaged takes the one before, says so, and leaves the files alone."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import mmdiffusion
from mmdiffusion.callbacks import StartFrom
from tests.helpers import CONFIG, build_trainer, command, write_config


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A run of two steps with a checkpoint of each, the last cut off, and the weights of the first."""
    folder = tmp_path_factory.mktemp("damaged")
    config = copy.deepcopy(CONFIG)
    config["trainer"]["callbacks"][1] = {"class_path": "LastCheckpoint", "init_args": {"every_n_steps": 1}}
    status, _, error = command("fit", "-c", write_config(folder / "tiny.yaml", config), "--run", folder / "run")
    assert status == 0, error
    last = folder / "run" / "checkpoints" / "last.ckpt"
    previous = last.with_name("previous.ckpt")
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (previous, last))
    assert any(not torch.equal(first[name], second[name]) for name in first), "or nothing would tell which is read"
    last.write_bytes(last.read_bytes()[:-1000])
    return SimpleNamespace(run=folder / "run", last=last, previous=previous, weights=first)


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.INFO):
        yield caplog


def assert_said(damaged, log):
    """Once, and nothing was renamed."""
    assert log.text.count(f"{damaged.last} is damaged: ") == 1
    assert f"taken is the one before, {damaged.previous}" in log.text
    assert sorted(damaged.last.parent.iterdir()) == [damaged.last, damaged.previous]


def equals(state, damaged):
    expected = damaged.weights
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


def test_load_takes_the_one_before(damaged, log):
    assert equals(mmdiffusion.load(damaged.run).state_dict(), damaged)
    assert_said(damaged, log)


def test_a_command_of_the_trainer_takes_the_one_before(damaged, log):
    status, _, error = command("validate", "--run", damaged.run)
    assert status == 0, error
    assert f"weights from the checkpoint at {damaged.previous}" in log.text
    assert_said(damaged, log)


def test_an_export_takes_the_one_before(damaged, log, tmp_path):
    status, _, error = command("export", "--run", damaged.run, "--to", tmp_path / "to")
    assert status == 0, error
    assert equals(load_file(tmp_path / "to" / "model.safetensors"), damaged)
    assert_said(damaged, log)


def test_a_report_takes_the_one_before(damaged, log, tmp_path):
    status, _, error = command("report", "--run", damaged.run, "--to", tmp_path / "page.html")
    assert status == 0, error
    assert "<dt>steps</dt><dd>1</dd>" in (tmp_path / "page.html").read_text()
    assert_said(damaged, log)


def test_a_training_starts_from_the_one_before(damaged, log, tmp_path):
    method = mmdiffusion.load(damaged.previous)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.zero_()
    StartFrom(str(damaged.run)).setup(build_trainer(tmp_path), method, "fit")
    assert equals(method.state_dict(), damaged)
    assert_said(damaged, log)


@pytest.mark.parametrize("name", ["test", "export", "report"])
def test_without_a_whole_one_nothing_is_read(damaged, tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_bytes((damaged.run / "config.yaml").read_bytes())
    for file in (damaged.last, damaged.previous):
        (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes()[:-1000])
    status, _, error = command(name, "--run", tmp_path)
    assert status == 2
    assert "There is no whole checkpoint in this run: start a new one" in error
    assert error.count("\n") == 1
