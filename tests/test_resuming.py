"""Checkpoint files: whole or not there, and a damaged one is found and passed over."""

import errno
import io
import os
import zipfile

import pytest
import torch

from mmdiffusion.checkpoints import damage, newest_whole
from mmdiffusion.resuming import FORMAT, check_format, set_aside, write_whole


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints."""
    for step in (1, 2):
        write_whole({"step": step, "weight": torch.full((1000,), float(step))}, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path


def step(path):
    return torch.load(path, weights_only=True)["step"]


def test_the_one_before_is_kept(run, caplog):
    folder = run / "checkpoints"
    assert {path.name: step(path) for path in folder.iterdir()} == {"last.ckpt": 2, "previous.ckpt": 1}
    assert newest_whole(run) == folder / "last.ckpt"
    assert not caplog.text


def test_it_has_its_name_only_once_the_disk_has_it(run, monkeypatch):
    def fail(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = run / "checkpoints"
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match=r"last.ckpt cannot be written: .*Input/output error"):
        write_whole({"step": 3}, folder / "last.ckpt")
    assert {path.name: step(path) for path in folder.iterdir()} == {"last.ckpt": 2, "previous.ckpt": 1}


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


def rename(path):
    """One wrong byte in the list of names, at which Python reports text that is no text, not a bad archive."""
    contents = bytearray(path.read_bytes())
    contents[contents.rindex(b"version")] = 0xFF
    path.write_bytes(contents)
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(path)


@pytest.mark.parametrize("harm", [cut, empty, flip, rename])
def test_a_damaged_last_one_falls_back_to_the_one_before(run, harm, caplog):
    last = run / "checkpoints" / "last.ckpt"
    harm(last)
    path = newest_whole(run)
    assert path is not None
    assert step(path) == 1
    assert f"{last} is damaged: " in caplog.text
    assert f"taken is the one before, {path}" in caplog.text


def test_no_wrong_byte_changes_what_is_read(tmp_path):
    """Every seventh byte in turn: it is found, or belongs to the padding and to fields that nothing reads."""
    path, original = tmp_path / "a.ckpt", {"step": 1, "weight": torch.arange(9.0)}
    torch.save(original, path)
    contents = path.read_bytes()
    found, places = 0, range(0, len(contents), 7)
    for place in places:
        wrong = bytearray(contents)
        wrong[place] ^= 0x88
        path.write_bytes(wrong)
        if damage(path) is None:
            read = torch.load(path, weights_only=True)
            assert read["step"] == 1
            assert torch.equal(read["weight"], original["weight"])
        else:
            found += 1
    assert found > 0.5 * len(places)


def test_a_damaged_one_never_replaces_a_whole_one(run):
    folder = run / "checkpoints"
    cut(folder / "last.ckpt")
    set_aside(run)
    write_whole({"step": 3}, folder / "last.ckpt")
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "last.ckpt.damaged", "previous.ckpt"]
    assert (step(folder / "last.ckpt"), step(folder / "previous.ckpt")) == (3, 1)


def test_a_whole_one_is_not_set_aside(run):
    """Another process may have put it there since it was found missing."""
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    set_aside(run)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_crash_between_the_two_names_leaves_the_one_before(run, caplog):
    (run / "checkpoints" / "last.ckpt").unlink()
    path = newest_whole(run)
    assert path is not None
    assert step(path) == 1
    assert "last.ckpt is missing" in caplog.text


def test_a_half_written_one_is_not_looked_at(run):
    part = run / "checkpoints" / "last.ckpt.part"
    part.write_bytes(b"half")
    assert newest_whole(run) == part.with_name("last.ckpt")
    write_whole({"step": 3}, part.with_name("last.ckpt"))
    assert not part.exists()


def test_without_a_whole_one_nothing_goes_on(run, tmp_path_factory):
    for name in ("last.ckpt", "previous.ckpt"):
        cut(run / "checkpoints" / name)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged.*previous.ckpt is damaged.*no whole checkpoint"):
        newest_whole(run)
    assert newest_whole(tmp_path_factory.mktemp("new")) is None


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
