"""Checkpoint files: whole or not there, and a damaged one is found and passed over."""

import io

import pytest
import torch

from mmdiffusion.resuming import FORMAT, check_format, damage, newest_whole, set_aside, write_whole


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints."""
    for step in (1, 2):
        write_whole({"step": step, "weight": torch.full((1000,), float(step))}, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path


def step(path):
    return torch.load(path, weights_only=True)["step"]


def test_the_one_before_is_kept(run):
    folder = run / "checkpoints"
    assert {path.name: step(path) for path in folder.iterdir()} == {"last.ckpt": 2, "previous.ckpt": 1}
    assert newest_whole(run) == (folder / "last.ckpt", [])


def test_another_name_is_not_rotated(tmp_path):
    for _ in range(2):
        write_whole({}, tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """One wrong byte among the weights, which `torch.load` reads without a word."""
    contents = bytearray(path.read_bytes())
    contents[contents.index(torch.full((1000,), 2.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(contents)
    assert torch.load(io.BytesIO(contents), weights_only=True)["step"] == 2


@pytest.mark.parametrize("harm", [cut, empty, flip])
def test_a_damaged_last_one_falls_back_to_the_one_before(run, harm):
    last = run / "checkpoints" / "last.ckpt"
    harm(last)
    assert damage(last)
    path, (note,) = newest_whole(run)
    assert step(path) == 1
    assert "last.ckpt is damaged" in note


def test_a_damaged_one_never_replaces_a_whole_one(run):
    folder = run / "checkpoints"
    cut(folder / "last.ckpt")
    set_aside(run)
    write_whole({"step": 3}, folder / "last.ckpt")
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "last.ckpt.damaged", "previous.ckpt"]
    assert (step(folder / "last.ckpt"), step(folder / "previous.ckpt")) == (3, 1)


def test_a_crash_between_the_two_names_leaves_the_one_before(run):
    (run / "checkpoints" / "last.ckpt").unlink()
    path, (note,) = newest_whole(run)
    assert step(path) == 1
    assert "last.ckpt is missing" in note


def test_a_half_written_one_is_not_looked_at(run):
    part = run / "checkpoints" / "last.ckpt.part"
    part.write_bytes(b"half")
    assert newest_whole(run)[0] == part.with_name("last.ckpt")
    write_whole({"step": 3}, part.with_name("last.ckpt"))
    assert not part.exists()


def test_without_a_whole_one_nothing_goes_on(run, tmp_path_factory):
    for name in ("last.ckpt", "previous.ckpt"):
        cut(run / "checkpoints" / name)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged.*previous.ckpt is damaged.*no whole checkpoint"):
        newest_whole(run)
    assert newest_whole(tmp_path_factory.mktemp("new")) == (None, [])


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({}, "an early mmdiffusion 0.1.0, in format 0"),
        ({"mmdiffusion": {"version": "9.0", "format": 9}}, "mmdiffusion 9.0"),
    ],
)
def test_another_format_is_named(contents, words):
    check_format({"mmdiffusion": {"version": "0.1.0", "format": FORMAT}}, "last.ckpt")
    with pytest.raises(ValueError, match=rf"last.ckpt was written by {words}.*StartFrom"):
        check_format(contents, "last.ckpt")
