"""What may differ when a run goes on."""

import copy

import pytest

from mmdiffusion.changes import changes, check_changes

CONFIG = {
    "seed_everything": 0,
    "ckpt_path": None,
    "trainer": {"max_steps": 10, "precision": "32-true", "callbacks": [{"class_path": "EMA"}]},
    "model": {"class_path": "CDCD", "init_args": {"denoiser": {"init_args": {"levels": [{"width": 16}]}}}},
    "data": {"class_path": "COCO", "init_args": {"root": "/a", "num_workers": 2, "batch_size": 8}},
    "cache": {"folder": None, "views": 1},
}


def changed(name, value):
    config = copy.deepcopy(CONFIG)
    *path, last = name.split(".")
    place = config
    for key in path:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed_everything", 1),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.accumulate_grad_batches", 2),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.gradient_clip_algorithm", "value"),
        ("trainer.limit_train_batches", 3),
        ("trainer.overfit_batches", 1),
        ("model.class_path", "DiffDis"),
        ("model.init_args.denoiser.init_args.levels.0.width", 32),
        ("data.init_args.batch_size", 16),
        ("cache.views", 2),
        ("cache.folder", "/b"),
    ],
)
def test_another_training_is_refused(name, value):
    with pytest.raises(
        ValueError, match=rf"--run is r, a run of other settings: {name} was .*, now {value}\. Expected"
    ):
        check_changes("r", CONFIG, changed(name, value))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trainer.max_steps", 20, "trainer.max_steps was 10, now 20: the learning rate follows"),
        ("trainer.callbacks", [], "trainer.callbacks.0.class_path was EMA, now None"),
        ("trainer.devices", 2, "trainer.devices was None, now 2"),
        ("data.init_args.root", "/b", "data.init_args.root was /a, now /b"),
        ("data.init_args.num_workers", 0, "num_workers was 2, now 0"),
        (
            "model.init_args.denoiser.init_args.gradient_checkpointing",
            True,
            "gradient_checkpointing was None, now True",
        ),
    ],
)
def test_the_same_training_elsewhere_is_named(name, value, words):
    assert words in " ".join(map(str, check_changes("r", CONFIG, changed(name, value))))


def test_the_checkpoint_is_no_setting_of_a_run():
    assert changes(CONFIG, changed("ckpt_path", "last.ckpt")) == []


def test_further_differences_are_counted():
    config = changed("data.init_args.batch_size", 16) | {"seed_everything": 1}
    with pytest.raises(ValueError, match=r"seed_everything was 0, now 1 \(and 1 more\)"):
        check_changes("r", CONFIG, config)
