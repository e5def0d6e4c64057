"""The command line after a mistake: one clear message, and nothing left behind."""

import os
import subprocess
import sys

import pytest

from tests.helpers import CONFIG, ROOT, assert_clear, command, write_config


def drawing(draw, callback="LogSamples", settings=""):
    """Words of the command line that ask for a kind of samples, x."""
    return ["--trainer.callbacks", f"{{class_path: {callback}, init_args: {{draws: {{x: {draw}}}{settings}}}}}"]


MODEL, DATA = "--model.init_args.", "--data.init_args."
EVALUATE = "{class_path: Evaluate, init_args: {draws: {}, metrics: [{class_path: ClassificationAccuracy}]}}"
LEVEL = "{width: 16, depth: 1, heads: 2}"
MISTAKES = [
    ([MODEL + "nonsense", "3"], ["nonsense"]),
    (["--nonsense", "3"], ["--nonsense"]),
    (["--trainer.max_step", "3"], ["max_step"]),
    (["--model.class_path", "MTDifusion"], ["MTDifusion", "MTDiffusion"]),
    ([MODEL + "schedule.class_path", "CosinSchedule"], ["schedule", "CosinSchedule"]),
    ([DATA + "batch_size", "0"], ["batch_size is 0", "at least 1"]),
    ([DATA + "batch_size", "many"], ["batch_size", "many", "int"]),
    ([DATA + "batch_size", "5000"], ["batch_size is 5000", "1257"]),
    ([DATA + "size", "9"], ["size is 9", "8 or 16"]),
    ([MODEL + "steps", "0"], ["steps is 0", "1 to 50"]),
    ([MODEL + "steps", "60"], ["steps is 60", "1 to 50"]),
    ([MODEL + "patch_size", "3"], ["patch_size is 3", "divisor of 8"]),
    ([MODEL + "patch_size", "0"], ["patch_size is 0"]),
    ([MODEL + "denoiser.init_args.levels", f"[{LEVEL}, {LEVEL}, {LEVEL}]"], ["levels has 3", "patch size"]),
    ([MODEL + "extras.label.absent_share", "0.9"], ["absent_share + shown_share of label is 1.1"]),
    (["--trainer.default_root_dir", "elsewhere"], ["default_root_dir is elsewhere", "--run"]),
    (["--trainer.precision", "bf16-true"], ["precision is bf16-true", "bf16-mixed"]),
    ([MODEL + "extras.label.shown_share", "0"], ["draws.conditional", "given is 'label'"]),
    (drawing("{given: [image, label]}"), ["draws.x: given is image, label", "something left to draw"]),
    (drawing("{given: [image, label]}", "Evaluate", ", metrics: []"), ["draws.x: given is image, label"]),
    (
        [*drawing("{given: [], drawn: [image]}"), MODEL + "extras.label.absent_share", "0"],
        ["draws.x: absent_share of label is 0", "above 0 in training"],
    ),
    (
        ["--trainer.callbacks", EVALUATE, MODEL + "extras.label.absent_share", "0"],
        ["metrics has classify_accuracy", "absent_share of label is 0", "leave the metric out"],
    ),
    (
        ["--trainer.callbacks", "{class_path: Bound}", MODEL + "extras.label.weight", "0"],
        ["weight of label is 0: expected above 0", "leave Bound out"],
    ),
    (["--trainer.callbacks", "{class_path: Bound, init_args: {num_strata: 50}}"], ["num_strata is 50", "1 to 49"]),
    (
        [
            *("--trainer.callbacks", "{class_path: GradientShare, init_args: {terms: [mse]}}"),
            *("--trainer.strategy.class_path", "mmdiffusion.sharding.Shards"),
        ],
        ["GradientShare is set, strategy is Shards", "leave it out"],
    ),
    ([MODEL + "paste_known", "true"], ["paste_known is True", "expected False"]),
    ([MODEL + "extras.lable.weight", "1"], ["extras", "required: encoder, head, drift"]),
    ([MODEL + "sampler", "euler"], ["sampler", "euler", "ddim"]),
    ([MODEL + "extras.label.head.init_args.tap", "top"], ["tap is 'top'", "mid"]),
    (["--trainer.gradient_clip_val", "1", "--trainer.gradient_clip_algorithm", "sum"], ["gradient_clip_algorithm"]),
    (
        ["--trainer.callbacks", "{class_path: StartFrom, init_args: {path: absent}}"],
        ["path absent", "train that first"],
    ),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options)[:50] for options, _ in MISTAKES])
def test_a_mistake_ends_in_one_clear_message_and_leaves_nothing(tmp_path, options, words):
    config = write_config(tmp_path / "tiny.yaml")
    status, _, err = command("fit", "-c", config, "--run", tmp_path / "run", *options)
    assert status == 2
    assert not (tmp_path / "run").exists(), "a refused run leaves a folder that cannot be used again"
    assert_clear(err, *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], ["'train'", "fit, validate, test, predict"]),
        (["-c", "x.yaml", "fit"], ["'-c'", "fit, validate, test, predict"]),
        (["--run", "x"], ["fit, validate, test, predict"]),
        (["fit", "--run"], ["--run is empty"]),
        (["fit"], ["config"]),
        (["fit", "-c"], ["config"]),
        (["fit", "-c", "absent.yaml"], ["absent.yaml"]),
        (["test"], ["--run"]),
        (["test", "--run", "absent"], ["absent", "config.yaml", "mmdiffusion fit"]),
    ],
    ids=" ".join,
)
def test_a_wrong_command_ends_in_one_clear_message(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    status, _, err = command(*words)
    assert status == 2
    assert_clear(err, *expected)
    assert not list(tmp_path.iterdir())


def test_an_overlay_alone_is_not_enough(tmp_path):
    path = write_config(tmp_path / "half.yaml", {key: CONFIG[key] for key in ("trainer", "data")})
    status, _, err = command("fit", "-c", path, "--run", tmp_path / "run")
    assert status == 2
    assert_clear(err, "model")


def test_a_folder_without_a_run_is_refused(tmp_path):
    status, _, err = command("test", "--run", tmp_path)
    assert status == 2
    assert_clear(err, str(tmp_path / "config.yaml"), "mmdiffusion fit")
    assert not list(tmp_path.iterdir())


def test_exit_status_of_the_process(tmp_path):
    config = write_config(tmp_path / "tiny.yaml")
    code = "from mmdiffusion.cli import main; main()"
    options = ["fit", "-c", config, "--run", tmp_path / "run", "--data.init_args.batch_size", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert_clear(done.stderr, "batch_size is 0")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
