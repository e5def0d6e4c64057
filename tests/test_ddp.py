"""Two processes from the command line do what one does: one run folder, the same samples, the same figures."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.runs import new_run
from mmdiffusion.seeding import step_generator, stream_seed
from tests.helpers import ROOT, write_config
from tests.resuming import differences

TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def call(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "program.py", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


CONTROL = """
from mmdiffusion.callbacks import Control

class Shown(Control):
    makes = ("image",)

    def check(self, data):
        pass

    def samples(self, data, split, indices):
        assert len(indices) <= 7
        return {"image": data.rows(split, [index + index % 2 for index in indices])["image"]}

    def protocol(self):
        return {"control": "every other digit is that of the next row"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder where two processes have trained a run without a name."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "program.py").write_text("from mmdiffusion.cli import main\n\nmain()\n")
    write_config(folder / "configs" / "tiny.yaml")
    call(folder, "fit", "-c", "configs/tiny.yaml", *TWO)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return folder / "runs" / "configs" / "tiny" / "0"


def test_two_processes_make_one_run(folder, run):
    assert [path.name for path in run.parent.iterdir()] == ["0"]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert len(list((run / "samples").glob("*.png"))) == 2


def test_two_machines_make_the_run_of_two_processes(folder, run):
    """Two agents of torchrun on loopback, each a machine with one process, started as `scripts/torchrun.sh` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["fit", "-c", "configs/tiny.yaml", "-c", str(ROOT / "configs" / "overlays" / "multinode.yaml")]
    words += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--run", "machines"]
    where = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *where, f"--node-rank={node}", "--", "program.py", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    said = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)
    machines, processes = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (folder / "machines", run)
    )
    assert all(torch.equal(machines[name], weight) for name, weight in processes.items())


def test_one_process_computes_what_two_train(folder, run, monkeypatch):
    """A step of two is one process's over both batches in turn: process r has every second row of the epoch's order."""
    words = ["-c", str(folder / "configs" / "tiny.yaml"), "--trainer.accumulate_grad_batches", "2"]
    monkeypatch.setattr(sys, "argv", ["mmdiffusion"])
    cli = MMDiffusionCLI(folder / "one", words, execute=False)
    data, size = cli.datamodule, cli.datamodule.batch_size
    order = torch.Generator().manual_seed(stream_seed(0, "order", 0))
    rows = torch.randperm(data.num_rows("train"), generator=order).tolist()
    places = [(step, rank) for step in range(2) for rank in range(2)]
    batches = [data.rows("train", rows[rank::2][step * size :][:size]) for step, rank in places]

    def noise(purpose, batch):
        step, rank = divmod(batch, 2)
        return step_generator(0, purpose, step, rank=rank, world_size=2, device="cpu")

    monkeypatch.setattr(data, "train_dataloader", lambda: DataLoader(batches, batch_size=None))
    monkeypatch.setattr(cli.model, "generator", noise)
    cli.trainer.fit(cli.model, datamodule=data)
    one, two = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        for path in (folder / "one", run)
    )
    for number, state in two.items():
        for name in ("exp_avg", "exp_avg_sq"):
            furthest = (one[number][name] - state[name]).abs().max()
            assert furthest <= 1e-4 * state[name].abs().max(), (number, name)


def test_weights_in_shards_make_the_same_run(folder, run):
    words = ("-c", ROOT / "configs" / "overlays" / "fsdp.yaml", "--trainer.accelerator=cpu", "--trainer.devices=2")
    call(folder, "fit", "-c", "configs/tiny.yaml", *words, "--run", "shards")
    shards, whole = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder / "shards", run)
    )
    for key in ("state_dict", "ema", "optimizer_states"):
        assert differences(shards[key], whole[key], key) == []
    figures = []
    for path, processes in ((folder / "shards", "2"), (run, "1")):
        call(folder, "test", "--run", path, "--trainer.devices", processes)
        figures.append(json.loads((path / "metrics.json").read_text())["judged_accuracy[digits-svm]"]["joint"]["value"])
    assert figures[0] == figures[1]


def test_figures_of_two_processes_equal_those_of_one(folder, run):
    call(folder, "test", "--run", run, *TWO)
    two = json.loads((run / "metrics.json").read_text())
    out = call(folder, "test", "--run", run).stdout
    assert out.count("judged_accuracy[digits-svm]") == 1, "one process reports"
    one = json.loads((run / "metrics.json").read_text())
    assert two == one


def test_a_control_is_shared_among_processes(folder, run):
    (folder / "control.py").write_text(CONTROL)
    judge = {"class_path": "JudgedAccuracy", "init_args": {"judge": {"class_path": "SVMJudge"}}}
    settings = {"draws": {}, "num_samples": 31, "batch_size": 7, "metrics": [judge]}
    settings |= {"controls": {"shown": {"class_path": "control.Shown"}}}
    config = {"trainer": {"callbacks": [{"class_path": "Evaluate", "init_args": settings}]}}
    write_config(folder / "control.yaml", config)
    odd = ("--data.init_args.eval_batch_size", "31", "--trainer.limit_test_batches", "1")
    figures = []
    for devices in (TWO, ()):
        call(folder, "test", "--run", run, "-c", "control.yaml", *odd, *devices)
        figures.append(json.loads((run / "metrics.json").read_text()))
    assert figures[0] == figures[1]
    shown = figures[0]["judged_accuracy[digits-svm]"]["shown"]
    assert shown["num_samples"] == 31
    assert 0.4 < shown["value"] < 0.7
    assert figures[0]["judged_accuracy[digits-svm]"]["real"]["num_samples"] == 31


def test_a_process_without_samples_waits_for_no_one(folder, run):
    judge = {"class_path": "JudgedAccuracy", "init_args": {"judge": {"class_path": "SVMJudge"}}}
    settings = {"draws": {"joint": {"given": []}}, "num_samples": 1, "metrics": [judge]}
    write_config(folder / "one.yaml", {"trainer": {"callbacks": [{"class_path": "Evaluate", "init_args": settings}]}})
    call(folder, "test", "--run", run, "-c", "one.yaml", *TWO)
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["judged_accuracy[digits-svm]"]["joint"]["num_samples"] == 1


def test_samples_of_two_processes_equal_those_of_one(folder, run):
    def predicted():
        paths = sorted((run / "samples" / "predict").iterdir())
        images = torch.stack([pil_to_tensor(Image.open(path)).int() for path in paths])
        names = [path.name for path in paths]
        for path in paths:
            path.unlink()
        return names, images

    call(folder, "predict", "--run", run, *TWO)
    names, two = predicted()
    call(folder, "predict", "--run", run)
    assert names == (other := predicted())[0]
    assert (two - other[1]).abs().max() <= 1
    assert len(names) == 360


def test_further_processes_are_told_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert new_run(str(tmp_path), None) == tmp_path
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="it exists, and a run is never overwritten"):
        new_run(str(tmp_path), None)
    with pytest.raises(ValueError, match="--run is missing"):
        new_run(None, "configs/mt_diffusion/digits.yaml")
