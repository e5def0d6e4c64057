"""Two gloo processes give what one gives, also when the second has no sample."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mmdiffusion

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def alone():
    worker = runpy.run_path(str(WORKER))
    return worker["values"](rank=0, num_first=worker["NUM_IMAGES"], batch_size=61)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What both processes computed: a list over ranks of share -> name -> value."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"PYTHONPATH": str(Path(mmdiffusion.__path__[0]).parent), "OMP_NUM_THREADS": "1"}
    outputs = [folder / f"{rank}.json" for rank in range(2)]
    commands = [
        [sys.executable, "-W", "error", WORKER, str(rank), "2", folder / "store", output]
        for rank, output in enumerate(outputs)
    ]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for command in commands]
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("share", ["uneven", "empty"])
@pytest.mark.parametrize(
    "name",
    [
        "fid[digits-cnn]",
        "is[digits-cnn]",
        "judged_accuracy[threshold]",
        "caption_accuracy[scene-reader]",
        "clip_score[colours]",
        "zero_shot_mean_per_class[label]",
        "recall_at_5[image to text]",
        "recall_at_1[text to image]",
        "psnr[image]",
        "visible_error[masked]",
        "mean_iou[segmentation]",
        "num_samples is[digits-cnn]",
        "num_samples psnr[image]",
        "num_samples visible_error[masked]",
        "num_samples mean_iou[segmentation]",
    ],
)
def test_two_processes_equal_one(alone, together, share, name):
    assert [rank[share][name] for rank in together] == pytest.approx([alone[name]] * 2, rel=1e-6)


BEATS = ["beat_f1[marks-1s]", "beat_f1[marks-70ms]", "beat_hit_spread[marks-1s]", "beat_alignment[kinematic-marks]"]


@pytest.mark.parametrize("share", ["uneven", "empty"])
@pytest.mark.parametrize("name", [*BEATS, *(f"num_samples {name}" for name in BEATS)])
def test_two_processes_hear_the_same_beats_to_the_last_bit(alone, together, share, name):
    assert [rank[share][name] for rank in together] == [alone[name]] * 2
    assert alone[name] > 0


def test_both_processes_agree_to_the_last_bit(together):
    assert together[0] == together[1]
    assert together[0]["uneven"]["num_samples classify_accuracy"] == 61


def test_the_values_tell_something(alone):
    assert alone["fid[digits-cnn]"] > 0
    assert 1 < alone["is[digits-cnn]"] < 10
    assert 0.5 < alone["judged_accuracy[threshold]"] < 1
    assert 0.6 < alone["caption_accuracy[scene-reader]"] < 0.7
