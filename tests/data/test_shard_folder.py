"""A folder of shards: filled in any order, resumed, checked against its hashes, and true to one plan."""

import json
from pathlib import Path

import pytest
import torch

from mmdiffusion.data.shard_folder import MANIFEST, ShardFolder, check_plan, damaged, read_manifest

PLAN = {"data": {"rows": 6, "names": ("a", "b")}, "rows": 2}


def build(path, plan=PLAN):
    folder = ShardFolder(path, plan, 3)
    folder.begin()
    return folder


def columns(number):
    return {"label": torch.arange(2) + 2 * number}


def fill(folder, numbers=range(3)):
    for number in numbers:
        folder.write(number, columns(number))
    return folder.finish()


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_a_folder_is_complete_when_all_shards_are_there(tmp_path):
    folder = build(tmp_path / "a")
    assert not fill(folder, [2, 0])
    assert read_manifest(tmp_path / "a")["shards"] is None
    assert fill(folder, [1])
    files = [f"shard-{number:05d}.safetensors" for number in range(3)]
    assert sorted(contents(tmp_path / "a")) == [MANIFEST, *files]
    assert [entry["file"] for entry in read_manifest(tmp_path / "a")["shards"]] == files


def test_order_and_number_of_processes_leave_no_trace(tmp_path):
    fill(build(tmp_path / "one"))
    for numbers in ([1], [2, 0]):
        fill(build(tmp_path / "two"), numbers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_is_there_is_not_written_again(tmp_path):
    folder = build(tmp_path)
    fill(folder, [1])
    assert build(tmp_path).missing(range(3)) == [0, 2]
    fill(folder, [0, 2])
    assert build(tmp_path).missing(range(3)) == []


def test_a_shard_that_was_cut_off_is_missing(tmp_path):
    folder = build(tmp_path)
    fill(folder, [0, 1])
    folder.file(0).with_suffix(".json").unlink()  # the file was there, its note was not written any more
    (tmp_path / "shard-00002.safetensors.unfinished").write_bytes(b"half")
    assert build(tmp_path).missing(range(3)) == [0, 2]
    fill(folder, [0, 2])
    fill(build(tmp_path / "other"))
    own = contents(tmp_path / "other")
    assert {name: (tmp_path / name).read_bytes() for name in own} == own
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_damaged_shard_is_named_and_written_again(tmp_path, caplog, is_complete):
    folder = build(tmp_path)
    fill(folder, range(3) if is_complete else [0, 1])
    spoil(folder.file(1))
    assert build(tmp_path).missing([0, 1]) == [1]
    assert "shard-00001.safetensors is damaged: its SHA-256 begins with" in caplog.text
    fill(folder, [1, 2])
    assert build(tmp_path).missing(range(3)) == []


def spoil(file):
    stored = bytearray(file.read_bytes())
    stored[-1] ^= 1
    file.write_bytes(stored)


def test_damage_is_found_by_size_and_by_hash(tmp_path):
    folder = build(tmp_path)
    fill(folder)
    entries = read_manifest(tmp_path)["shards"]
    assert not list(damaged(tmp_path, entries))
    spoil(folder.file(0))
    folder.file(1).write_bytes(b"short")
    folder.file(2).unlink()
    found = dict(damaged(tmp_path, entries))
    assert list(found) == [entry["file"] for entry in entries]
    hashed, short, gone = found.values()
    assert "its SHA-256 begins with" in hashed
    assert f"it has 5 bytes, expected {entries[1]['bytes']}" in short
    assert gone.endswith("is missing")


def test_another_plan_is_refused_by_its_first_difference(tmp_path):
    build(tmp_path)
    with pytest.raises(ValueError, match=r"was prepared with data\.rows 6: this configuration has 7; prepare another"):
        build(tmp_path, {"data": {"rows": 7, "names": ("a", "b")}, "rows": 2})
    build(tmp_path)


def test_what_one_plan_lacks_is_named():
    with pytest.raises(ValueError, match=r"a was prepared with size none: this configuration has \[3\]"):
        check_plan(Path("a"), {"size": (3,)}, {})


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, r"holds no cache: manifest\.json is missing; make one with `mmdiffusion prepare`"),
        ("{", r"manifest\.json is no manifest"),
        ("[]", r"manifest\.json is no manifest"),
        (json.dumps({"plan": {}}), r"manifest\.json is no manifest"),
    ],
)
def test_what_is_no_manifest_is_named(tmp_path, contents, message):
    if contents is not None:
        (tmp_path / MANIFEST).write_text(contents)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)
