"""What is refused says why in one message, and leaves the run that is there to the byte."""

import re
import shutil

import pytest
import torch
from filelock import FileLock

import mmdiffusion
from mmdiffusion.callbacks import StartFrom
from tests.helpers import assert_clear, build_trainer, command, write_config

MORE = ("--trainer.max_steps", "3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("finished")
    status, _, error = command("fit", "-c", write_config(folder / "tiny.yaml"), "--run", folder / "run")
    assert status == 0, error
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def flip(path):
    """Change one byte among the weights, which PyTorch reads without a word."""
    whole = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["state_dict"]["network.denoiser.embed.weight"]
    whole[whole.index(weight.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(whole)


def assert_refused(run, *words, said):
    before = contents(run)
    status, _, error = command(*words)
    assert status == 2
    assert_clear(error, *said)
    assert contents(run) == before


def test_a_second_training_in_the_folder(run, monkeypatch):
    """The curve above all, to which the first is writing."""
    monkeypatch.setattr("mmdiffusion.callbacks.record.WAIT", 0.01)
    (run / "metrics.csv").write_text("step,train/loss\n" + "".join(f"{step},1.0\n" for step in range(9)))
    with FileLock(run / ".lock"):
        assert_refused(run, "fit", "--run", run, *MORE, said=[str(run), "another process is training there"])


def test_a_beginning_from_nothing_where_a_run_is(run):
    said = ["--ckpt_path is null", "last.ckpt", "never overwritten"]
    assert_refused(run, "fit", "--run", run, "--ckpt_path", "null", *MORE, said=said)


def test_the_checkpoint_of_another_where_a_run_is(run, finished):
    other = finished / "checkpoints" / "last.ckpt"
    said = [f"--ckpt_path is {other}", str(run), "never overwritten"]
    assert_refused(run, "fit", "--run", run, f"--ckpt_path={other}", *MORE, said=said)


def test_its_own_checkpoint_may_be_named(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    status, _, error = command("fit", "--run", run.name, "--ckpt_path", run / "checkpoints" / "last.ckpt", *MORE)
    assert status == 0, error
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_figures_of_weights_that_nobody_trained(run):
    said = ["--ckpt_path is null", "trained weights"]
    assert_refused(run, "test", "--run", run, "--ckpt_path", "null", said=said)


@pytest.mark.parametrize("name", ["test", "fit"])
def test_a_damaged_checkpoint_by_its_path(run, tmp_path, name):
    path = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "other.ckpt")
    flip(path)
    options = ["--run", run] if name == "test" else ["-c", run / "config.yaml", "--run", tmp_path / "new", *MORE]
    assert_refused(run, name, *options, "--ckpt_path", path, said=[f"{path} is damaged", "differs from what was"])
    assert not (tmp_path / "new").exists()


def test_whatever_reads_a_damaged_checkpoint_by_its_path(run, tmp_path):
    method, path = mmdiffusion.load(run), run / "checkpoints" / "last.ckpt"
    flip(path)
    for read in (mmdiffusion.load, lambda path: StartFrom(str(path)).setup(build_trainer(tmp_path), method, "fit")):
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            read(path)


@pytest.mark.parametrize("name", ["fit", "test", "export", "report"])
@pytest.mark.parametrize(("text", "said"), [("", "has no trainer, model and data"), ("{a: [", "cannot be read")])
def test_a_run_whose_settings_are_lost(run, name, text, said):
    (run / "config.yaml").write_text(text)
    assert_refused(run, name, "--run", run, said=[str(run / "config.yaml"), said, "mmdiffusion fit"])


def test_a_curve_without_steps(run):
    (run / "metrics.csv").write_text("a,b\n1,2\n")
    assert_refused(run, "fit", "--run", run, *MORE, said=[str(run / "metrics.csv"), "has no column step"])


@pytest.mark.parametrize(
    "words",
    [("fit", "--run", "{file}/new", "-c", "{run}/config.yaml"), ("export", "--run", "{run}", "--to", "{file}/new")],
    ids=["fit", "export"],
)
def test_a_folder_inside_a_file(run, tmp_path, words):
    (tmp_path / "file").touch()
    words = [word.format(file=tmp_path / "file", run=run) for word in words]
    assert_refused(run, *words, said=[str(tmp_path / "file"), "Not a directory", "give another path"])
