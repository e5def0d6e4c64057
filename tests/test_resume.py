"""A training that was stopped anywhere and went on is, to the bit, the one that was not."""

import csv
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from lightning import Callback

from mmdiffusion.callbacks import Draw, LogSamples
from tests.helpers import CONFIG, assert_clear, command, fit_run, write_config
from tests.resuming import METHODS, Fit, differences, run_two

EPOCHS = {"max_steps": -1, "max_epochs": 3}
"""The trainer then asks for the length of the data, and so for its loader, before it knows where to go on."""
ACCUMULATED = {"accumulate_grad_batches": 2, "max_steps": 7, "gradient_clip_val": 0.1}


# In one process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_workers", "settings"),
    [
        ("mt_diffusion", 0, ACCUMULATED),
        ("mt_diffusion", 2, {}),
        ("cdcd", 0, {}),
        ("cdcd", 2, EPOCHS),
        ("diffdis", 0, {"limit_train_batches": 3}),
        ("vq_autoencoder", 2, ACCUMULATED),
    ],
)
def test_stopped_and_gone_on_equals_never_stopped(tmp_path, name, num_workers, settings):
    """Stopped within an epoch, at its end, and where a validation is due; each part from the checkpoint of the last."""
    whole = Fit(name, tmp_path / "whole", num_workers=num_workers, **settings)
    losses, validations, start = [], set(), None
    for stop in (2, 3, 5, None):
        part = Fit(name, tmp_path / "parts", num_workers=num_workers, start=start, crash_after=stop, **settings)
        losses += part.watch.losses
        validations |= set(part.watch.validations)
        start = part.last
    assert losses == whole.watch.losses
    assert sorted(validations) == whole.watch.validations
    assert differences(part.state(), whole.state()) == []
    assert differences(part.samples(), whole.samples()) == []


class TermAt(Callback):
    """Tells this process to stop in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "settings"),
    [(3, {}), (5, {"val_check_interval": 5}), (5, {"val_check_interval": 1.0, "check_val_every_n_epoch": 1})],
    ids=["within an epoch", "at its end", "once an epoch"],
)
def test_a_validation_that_a_signal_has_kept_from_being_made_comes_first(tmp_path, stop, settings):
    """Five batches are an epoch; a step in which nothing is due is no stop for this."""
    settings |= {"max_steps": 7}
    whole = Fit("mt_diffusion", tmp_path / "whole", **settings)
    assert stop in [step for step, _ in whole.watch.validations]
    first = Fit("mt_diffusion", tmp_path / "parts", callbacks=[TermAt(stop)], **settings)
    assert (len(first.watch.losses), first.watch.validations) == (stop, [])
    second = Fit("mt_diffusion", tmp_path / "parts", start=first.last, **settings)
    assert second.watch.validations == whole.watch.validations
    assert first.watch.losses + second.watch.losses == whole.watch.losses
    assert differences(second.state(), whole.state()) == []


def test_samples_are_written_at_the_same_steps(tmp_path):
    """Validations are at steps 3, 6, 9 and 12, and samples at the first of them that is four steps or more later."""
    names = {}
    for name, stops in (("whole", [None]), ("parts", [7, None])):
        last = None
        for stop in stops:
            samples = LogSamples({"joint": Draw([])}, num_samples=1, every_n_steps=4)
            last = Fit("mt_diffusion", tmp_path / name, callbacks=[samples], crash_after=stop, start=last).last
        names[name] = sorted(path.name for path in (tmp_path / name / "samples").iterdir())
    assert names["parts"] == names["whole"] == ["step-000006-joint.png", "step-000012-joint.png"]


# In two --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What `resume_worker.py` found in each of two processes, and how they ended."""
    folder = tmp_path_factory.mktemp("two")
    processes, errors = run_two("resume_worker.py", folder, timeout=240)
    found = [torch.load(folder / f"{rank}.pt") if (folder / f"{rank}.pt").is_file() else {} for rank in (0, 1)]
    assert all(found), "\n".join(errors)
    return found, [process.returncode for process in processes], errors


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_go_on_as_one_training(two, name):
    for found in two[0]:
        assert found[name]["losses"]
        assert found[name]["differences"] == []
        assert found[name]["stopped"] == 4


def test_processes_share_one_bank_of_negatives(two):
    first, second = (found["cdcd"]["buffers"] for found in two[0])
    assert first
    assert differences(second, first) == []


def test_a_step_that_is_bad_in_one_process_is_skipped_in_all(two):
    assert [found["bad"]["skipped"] for found in two[0]] == [1, 1]
    assert two[0][0]["bad"]["weight"] == two[0][1]["bad"]["weight"]
    ranks = [(line["rank"], line["terms"]["train/loss"]) for line in two[0][0]["bad"]["lines"]]
    assert ranks[0][0] == 0
    assert ranks[1] == (1, "nan")


def test_a_killed_process_ends_the_others_with_a_message(two):
    _, statuses, errors = two
    assert statuses == [1, -signal.SIGKILL]
    assert "another process of this training has ended" in errors[0]
    assert "Traceback" not in errors[0]


# From the command line -----------------------------------------------------------------------------------------


class Term(Callback):
    """Tells this process to stop, at its second batch."""

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.fit_loop.total_batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


LENGTH = ["--trainer.max_steps", "4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders with runs of four steps: one at once, one that was told to stop after the second."""
    folder = tmp_path_factory.mktemp("runs")
    fit_run(folder, *LENGTH)
    callbacks = [*CONFIG["trainer"]["callbacks"], {"class_path": "tests.test_resume.Term"}]
    write_config(folder / "stopped.yaml", CONFIG | {"trainer": CONFIG["trainer"] | {"callbacks": callbacks}})
    words = ["fit", "-c", folder / "stopped.yaml", "--run", folder / "stopped", *LENGTH]
    status, _, err = command(*words)
    assert status == 75, err
    assert f"stopped after step 2, as SIGTERM asked; `mmdiffusion fit --run {folder / 'stopped'}` goes on" in err
    status, _, err = command(*words)
    assert status == 0, err
    return folder / "run", folder / "stopped"


def curve(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [sorted(row.items()) for row in csv.DictReader(file)]


def test_the_same_command_goes_on(runs):
    whole, stopped = runs
    contents = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    for key in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "loops", "Digits"):
        assert differences(contents[1][key], contents[0][key], key) == []
    assert curve(stopped) == curve(whole)
    pictures = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in runs]
    assert pictures[0] == pictures[1]


def changed(run, tmp_path, change):
    """A copy of a run with another last checkpoint."""
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    change(contents)
    torch.save(contents, copy / "checkpoints" / "last.ckpt")
    return copy


def test_a_run_goes_on_by_its_folder_and_may_become_longer(runs, tmp_path, caplog):
    run = changed(runs[0], tmp_path, lambda contents: None)
    status, _, err = command("fit", "--run", run)
    assert status == 2
    assert_clear(err, str(run), "finished, at step 4", "never overwritten", "--trainer.max_steps")
    with caplog.at_level(logging.INFO):
        status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 0, err
    assert "trainer.max_steps was 4, now 5: the learning rate follows" in caplog.text
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 5


def test_a_run_of_epochs_is_finished_by_their_number(tmp_path):
    length = ["--trainer.max_steps", "-1", "--trainer.limit_train_batches", "2", "--trainer.max_epochs"]
    fit_run(tmp_path, *length, "1")
    status, _, err = command("fit", "--run", tmp_path / "run")
    assert status == 2
    assert_clear(err, "finished, at step 2")
    status, _, err = command("fit", "--run", tmp_path / "run", "--trainer.max_epochs", "2")
    assert status == 0, err
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_damaged_checkpoint_is_passed_over_and_said(runs, tmp_path, caplog):
    run = changed(runs[0], tmp_path, lambda contents: None)
    last = run / "checkpoints" / "last.ckpt"
    last.rename(last.with_name("previous.ckpt"))
    last.write_bytes(last.with_name("previous.ckpt").read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 0, err
    assert "last.ckpt is damaged" in caplog.text
    names = sorted(path.name for path in last.parent.iterdir())
    assert names == ["last.ckpt", "last.ckpt.damaged", "previous.ckpt"]


def test_a_run_without_a_checkpoint_starts_again(runs, tmp_path):
    run = changed(runs[0], tmp_path, lambda contents: None)
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "metrics.csv").write_text("step,train/loss\n0,9.0\n")
    status, _, err = command("fit", "--run", run)
    assert status == 0, err
    assert curve(run) == curve(runs[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_disk_ends_the_training_with_a_message_also_where_the_curve_is_written(runs, tmp_path):
    run = changed(runs[0], tmp_path, lambda contents: None)
    (run / "metrics.csv").symlink_to("/dev/full")
    status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 1
    assert_clear(err, "no room on the disk", "No space left on device", f"`mmdiffusion fit --run {run}` goes on")


def test_one_process_trains_in_a_folder(runs, tmp_path, monkeypatch):
    run = changed(runs[0], tmp_path, lambda contents: None)
    monkeypatch.setattr("mmdiffusion.callbacks.record.WAIT", 0.01)
    with FileLock(run / ".lock"):
        status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 2
    assert_clear(err, str(run), "another process is training there")


def test_another_experiment_is_refused(runs):
    status, _, err = command("fit", "--run", runs[0], "--data.init_args.batch_size", "8", "--trainer.max_steps", "5")
    assert status == 2
    assert_clear(err, str(runs[0]), "data.init_args.batch_size was 16, now 8", "StartFrom")


def test_an_older_checkpoint_is_named(runs, tmp_path):
    run = changed(runs[0], tmp_path, lambda contents: contents.pop("mmdiffusion"))
    status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 2
    assert_clear(err, "last.ckpt was written by an early mmdiffusion", "StartFrom")
    assert command("validate", "--run", run)[0] == 0


def test_a_refused_change_leaves_the_settings_as_they_were(runs, tmp_path):
    """A number of processes is no setting, so it is compared when the place in the data is taken."""
    run = changed(runs[0], tmp_path, lambda contents: contents["Digits"].update(processes=2))
    before = (run / "config.yaml").read_text()
    status, _, err = command("fit", "--run", run, "--trainer.max_steps", "5")
    assert status == 2
    assert_clear(err, "processes is 1: expected 2")
    assert (run / "config.yaml").read_text() == before


def test_a_run_with_an_average_does_not_go_on_without(runs, tmp_path):
    """Its checkpoint holds the average as the weights; trained on, it would be another training."""
    run = changed(runs[0], tmp_path, lambda contents: None)
    words = ["--trainer.max_steps", "5", "--trainer.callbacks", '[{"class_path": "LastCheckpoint"}]']
    status, _, err = command("fit", "--run", run, *words)
    assert status == 2
    assert_clear(err, "callbacks has no EMA", str(run), "expected EMA")


def test_a_run_goes_on_when_the_one_it_started_from_is_gone(runs, tmp_path):
    start = {"class_path": "StartFrom", "init_args": {"path": str(tmp_path / "a")}}
    callbacks = [start, *CONFIG["trainer"]["callbacks"]]
    config = write_config(tmp_path / "b.yaml", CONFIG | {"trainer": CONFIG["trainer"] | {"callbacks": callbacks}})
    shutil.copytree(runs[0], tmp_path / "a")
    words = ["fit", "-c", config, "--run", tmp_path / "b"]
    status, _, err = command(*words)
    assert status == 0, err
    shutil.rmtree(tmp_path / "a")
    status, _, err = command(*words, "--trainer.max_steps", "3")
    assert status == 0, err


def test_other_batches_are_refused_from_another_folder(runs, tmp_path):
    last = runs[0] / "checkpoints" / "last.ckpt"
    words = ["--ckpt_path", last, "--data.init_args.batch_size", "8", "--trainer.max_steps", "5"]
    status, _, err = command("fit", "-c", runs[0] / "config.yaml", "--run", tmp_path / "more", *words)
    assert status == 2
    assert_clear(err, "batch_size is 8: expected 16")


def test_a_run_goes_on_in_another_folder(runs, tmp_path):
    words = ["--ckpt_path", runs[0] / "checkpoints" / "last.ckpt", "--trainer.max_steps", "5"]
    status, _, err = command("fit", "-c", runs[0] / "config.yaml", "--run", tmp_path / "more", *words)
    assert status == 0, err
    checkpoint = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 5
    assert checkpoint["ema"]["num_updates"] == 5
