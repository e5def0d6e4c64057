"""Mistakes in the CDCD experiments on the command line: one clear message, and nothing written."""

import pytest
import yaml

from tests.helpers import QUIET, command, write_config
from tests.test_cli import assert_clear

CONFIG = {
    "trainer": {
        **{key: value for key, value in QUIET.items() if key != "logger"},
        "max_steps": 2,
        "limit_val_batches": 1,
        "callbacks": [{"class_path": "LastCheckpoint"}],
    },
    "model": {
        "class_path": "CDCD",
        "init_args": {
            "codec": {"class_path": "SymbolicMusic"},
            "is_aligned": True,
            "conditioner": {
                "class_path": "MotionConditioner",
                "init_args": {"width": 16, "vector_width": 8, "depth": 1},
            },
            "denoiser": {"class_path": "Denoiser", "init_args": {"levels": [{"width": 16, "depth": 1, "heads": 2}]}},
            "schedule": {"class_path": "ReleasedSchedule", "init_args": {"num_steps": 10}},
            "sampler": {"class_path": "Ancestral"},
            "contrasts": [{"class_path": "Contrast", "init_args": {"negatives": {"class_path": "IntraNegatives"}}}],
            "steps": 5,
            "warmup_steps": 1,
        },
    },
    "data": {"class_path": "Dance", "init_args": {"batch_size": 32, "num_train": 40, "seconds": 1.0}},
}
MODEL, DATA = "--model.init_args.", "--data.init_args."


def table(keep, mask):
    return [MODEL + "schedule", f"{{class_path: TableSchedule, init_args: {{keep: {keep}, mask: {mask}}}}}"]


def contrast(kind, **settings):
    negatives = {"class_path": kind, "init_args": settings}
    return [MODEL + "contrasts", yaml.dump([{"class_path": "Contrast", "init_args": {"negatives": negatives}}])]


def evaluate(**settings):
    callback = {"class_path": "Evaluate", "init_args": {"draws": {}, "metrics": [], **settings}}
    return ["--trainer.callbacks", yaml.dump([callback])]


CLICKS = {"class_path": "ClickTrack"}
MISTAKES = [
    ([DATA + "seconds", "0.01"], ["seconds is 0.01", "at least 0.75"]),
    ([DATA + "seconds", "1.02"], ["seconds is 1.02", "a multiple of 0.05"]),
    (table([0.9, 0.5], [0.2, 0.6]), ["replaced share 1 - keep - mask at step 1 is -0.1", "above 0"]),
    (table([0.5, 0.6], [0.2, 0.3]), ["keep at step 2 is 0.6", "below that of the step before"]),
    (table([0.5], [0.2, 0.3]), ["keep has 1 numbers and mask 2"]),
    (
        [MODEL + "schedule", "{class_path: MaskAndReplaceSchedule, init_args: {mask_share: 1.5}}"],
        ["mask_share is 1.5", "between 0 and 1"],
    ),
    (contrast("InterNegatives", num_negatives=100), ["num_negatives is 100", "batch of 32", "28 of another class"]),
    (
        [*contrast("InterNegatives", num_negatives=10), DATA + "eval_batch_size", "66"],
        ["num_negatives is 10", "batch of 2 ", "eval_batch_size"],
    ),
    (contrast("IntraNegatives", num_chunks=21), ["num_chunks is 21", "at most 20"]),
    ([MODEL + "steps", "11"], ["steps is 11", "1 to 10"]),
    ([MODEL + "steps", "0"], ["steps is 0", "1 to 10"]),
    ([MODEL + "conditioner", "{class_path: LabelConditioner}"], ["is_aligned is True", "context tokens"]),
    ([MODEL + "conditioner", "{class_path: ReferenceMotionConditioner}"], ["is_aligned is True", "1 context tokens"]),
    (
        [MODEL + "conditioner.init_args.tokens_per_second", "10"],
        ["10 context tokens and 20 drawn", "tokens_per_second"],
    ),
    ([MODEL + "conditioner.init_args.tokens_per_second", "7"], ["tokens_per_second is 7", "divisor of 60"]),
    ([MODEL + "codec.init_args.tokens_per_second", "7"], ["tokens_per_second is 7", "motion lasts 1 s", "expected 20"]),
    ([MODEL + "truncation", "0"], ["truncation is 0.0", "above 0 and at most 1"]),
    ([MODEL + "truncation", "1.5"], ["truncation is 1.5", "above 0 and at most 1"]),
    ([MODEL + "temperature", "0"], ["temperature is 0.0", "above 0"]),
    (evaluate(controls={"clicks": CLICKS}), ["controls.clicks", "audio: true"]),
    ([*evaluate(controls={"clicks": CLICKS}), DATA + "audio", "true"], ["controls.clicks", "no metric reads"]),
    (evaluate(controls={"real": CLICKS}), ["controls has the name real"]),
    (evaluate(controls={"clicks": {"class_path": "ClickTrak"}}), ["'ClickTrak'", "expected ClickTrack"]),
    (evaluate(controls={"clicks": {"class_path": "Dance"}}), ["'Dance'", "a class of another kind"]),
    (evaluate(num_samples=0), ["num_samples is 0", "at least 1"]),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options)[:70] for options, _ in MISTAKES])
def test_a_mistake_ends_in_one_clear_message_and_leaves_nothing(tmp_path, options, words):
    config = write_config(tmp_path / "tiny.yaml", CONFIG)
    status, _, err = command("fit", "-c", config, "--run", tmp_path / "run", *options)
    assert status == 2
    assert not (tmp_path / "run").exists()
    assert_clear(err, *words)
    assert "subclass" not in err, "what the parser tried"


@pytest.mark.parametrize(
    "options",
    [
        [MODEL + "steps", "3"],
        contrast("InterNegatives", num_negatives=10),
        [MODEL + "conditioner", "{class_path: ReferenceMotionConditioner}", MODEL + "is_aligned", "false"],
    ],
    ids=["steps that do not divide T", "negatives from the batch", "the dance in one token"],
)
def test_what_is_no_mistake_trains_and_draws(tmp_path, options):
    """The folder of the run is all that a later command needs."""
    config = write_config(tmp_path / "tiny.yaml", CONFIG)
    status, _, err = command("fit", "-c", config, "--run", tmp_path / "run", *options)
    assert status == 0, err
    limits = ["--trainer.limit_predict_batches", "1", DATA + "eval_batch_size", "2"]
    status, _, err = command("predict", "--run", tmp_path / "run", *limits)
    assert status == 0, err
