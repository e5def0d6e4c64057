"""DiffDis from the command line: fit, test, reload; the user's mistakes: one clear message, and nothing written."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image

import mmdiffusion
from tests.helpers import QUIET, ROOT, command, write_config
from tests.test_cli import assert_clear

CONFIG = {
    "trainer": {
        **{key: value for key, value in QUIET.items() if key != "logger"},
        "max_steps": 2,
        "limit_val_batches": 1,
        "callbacks": [{"class_path": "EMA"}, {"class_path": "LastCheckpoint"}],
    },
    "model": {
        "class_path": "DiffDis",
        "init_args": {
            "codec": {"class_path": "Pixels"},
            "tower": {"class_path": "HashTower", "init_args": {"width": 16}},
            "conditioner": {
                "class_path": "TowerConditioner",
                "init_args": {"width": 16, "vector_width": 8, "depth": 1},
            },
            "denoiser": {
                "class_path": "Denoiser",
                "init_args": {"levels": [{"width": 16, "depth": 1, "heads": 2}], "query_direction": "one_way"},
            },
            "head": {"class_path": "AlignmentHead", "init_args": {"width": 16, "depth": 1, "heads": 2}},
            "schedule": {"class_path": "CosineSchedule", "init_args": {"num_steps": 10}},
            "patch_size": 2,
            "steps": 2,
            "warmup_steps": 1,
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 32}},
}
MODEL, DATA = "--model.init_args.", "--data.init_args."


def evaluate(*metrics, **draws):
    settings = {"draws": draws, "metrics": list(metrics), "num_samples": 20}
    return [{"class_path": "Evaluate", "init_args": settings}]


ZERO_SHOT = {"class_path": "ZeroShotAccuracy", "init_args": {"templates": ["a handwritten {}"]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained and tested."""
    folder = tmp_path_factory.mktemp("diffdis")
    recall = {"class_path": "RetrievalRecall", "init_args": {"k": 5}}
    samples = {"class_path": "LogSamples", "init_args": {"draws": {"digit": {"given": ["caption"]}}}}
    callbacks = [*CONFIG["trainer"]["callbacks"], samples, *evaluate(ZERO_SHOT, recall, digit={"given": ["caption"]})]
    trainer = CONFIG["trainer"] | {"callbacks": callbacks}
    config, run = write_config(folder / "tiny.yaml", CONFIG | {"trainer": trainer}), folder / "run"
    for words in (("fit", "-c", config), ("test",), ("predict",)):
        status, _, err = command(*words, "--run", run)
        assert status == 0, err
    return folder / "run"


def test_generation_and_discrimination_stand_in_one_table(run):
    figures = json.loads((run / "metrics.json").read_text())
    assert set(figures["zero_shot_top1[label]"]) == {"recognise", "blank images", "other images"}
    assert set(figures["recall_at_5[image to text]"]) == {"recognise", "blank images", "other images"}
    assert figures["zero_shot_top1[label]"]["recognise"]["made"]["direction"] == "one_way"


def test_predict_draws_a_picture_for_each_caption(run):
    assert len(list((run / "samples").rglob("*.png"))) >= 20


def test_frozen_towers_are_in_no_checkpoint(run):
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if name.startswith(("tower", "codec"))]
    assert any(name.startswith("query.head") for name in state)


def test_a_run_comes_back_and_classifies(run):
    model = mmdiffusion.load(run)
    made = [
        model.classify({"image": torch.zeros(3, 1, 8, 8)}, ["a handwritten one", "a handwritten two"]) for _ in "12"
    ]
    assert made[0].shape == (3, 2)
    torch.testing.assert_close(made[0].sum(1), torch.ones(3))
    assert torch.equal(*made)


def test_the_example_of_the_readme_classifies_a_picture(run, tmp_path):
    _, example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    Image.new("L", (8, 8), 200).save(tmp_path / "mine.png")
    code = "import mmdiffusion\n" + example.replace("runs/diffdis", str(run)) + "print(tuple(probabilities.shape))\n"
    code = code.replace("a large red circle at the top left", "a handwritten one")
    code = code.replace("a small blue cross at the bottom right", "a handwritten two")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1, 2)\n"


MISTAKES = [
    ([DATA + "batch_size", "1"], ["the smallest batch has 1 pair", "at least 2"]),
    ([MODEL + "gamma", "16"], ["gamma is 16", "above 0 up to 1", "gives the caption away"]),
    ([MODEL + "patch_size", "3"], ["patch_size is 3", "divisor of the latent size, 8"]),
    ([MODEL + "alignment_steps", "11"], ["steps is 11", "1 to 10"]),
    ([MODEL + "alignment_weight", "-1"], ["alignment_weight is -1", "0 or more"]),
    (
        [MODEL + "tower", "{class_path: CLIPTower, init_args: {path: nowhere}}"],
        ["path is nowhere", "config.json is missing", "hf download openai/clip-vit-large-patch14"],
    ),
    (
        [MODEL + "codec", "{class_path: AutoencoderKLLatents, init_args: {path: nowhere}}"],
        ["path is nowhere", "config.json is missing"],
    ),
    ([MODEL + "head.init_args.depth", "0"], ["depth of the alignment head is 0", "at least 1"]),
    (
        [MODEL + "alignment_weight", "0", "--trainer.callbacks", yaml.dump(evaluate(ZERO_SHOT))],
        ["alignment_weight is 0", "recognising images"],
    ),
    (
        ["--trainer.callbacks", yaml.dump(evaluate({**ZERO_SHOT, "init_args": {"templates": ["a digit"]}}))],
        ["templates has 'a digit'", "{} where the name of a class goes"],
    ),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options)[:60] for options, _ in MISTAKES])
def test_a_mistake_ends_in_one_clear_message_and_leaves_nothing(tmp_path, options, words):
    config = write_config(tmp_path / "tiny.yaml", CONFIG)
    status, _, err = command("fit", "-c", config, "--run", tmp_path / "run", *options)
    assert status == 2
    assert not (tmp_path / "run").exists()
    assert_clear(err, *words)


def test_a_small_contrastive_batch_is_warned_of(tmp_path):
    config = write_config(tmp_path / "tiny.yaml", CONFIG)
    with pytest.warns(UserWarning, match="the smallest batch has 8 pairs"):
        status, _, err = command("fit", "-c", config, "--run", tmp_path / "run", DATA + "batch_size", "8")
    assert status == 0, err
