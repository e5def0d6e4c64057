"""Shards: what goes in comes out, by row and in any order; written whole or not at all."""

import os
import pickle

import pytest
import torch
from safetensors import safe_open

from mmdiffusion.data.shards import Rows, Shard, pack, write_whole
from tests.helpers import generator

SIZE = 10


def build_columns(seed=0):
    return {
        "image": torch.randint(256, (SIZE, 3, 4, 4), dtype=torch.uint8, generator=generator(seed)),
        "latent": torch.randn(SIZE, 2, generator=generator(seed)),
        "mask": torch.rand(SIZE, 3, generator=generator(seed)) < 0.5,
        "label": torch.arange(SIZE),
        "middle": torch.arange(SIZE) * 100_000 - 5,
        "large": torch.arange(SIZE) * 10**12,
        "caption": ["a b", "", "caf\u00e9", "x" * 100, "\u4e2d"] * 2,
    }


def assert_rows(found, columns, rows):
    assert set(found) == set(columns)
    for name, values in columns.items():
        if isinstance(values, list):
            assert found[name] == [values[row] for row in rows]
        else:
            assert torch.equal(found[name], values[rows])
            assert found[name].dtype == values.dtype, name


@pytest.mark.parametrize("rows", [[0], [9, 0, 9, 4], list(range(SIZE))])
def test_rows_come_back_as_they_were(tmp_path, rows):
    write_whole(tmp_path / "a", pack(build_columns()))
    assert_rows(Shard(tmp_path / "a").take(torch.tensor(rows)), build_columns(), rows)


def test_rows_of_many_files_come_in_the_order_asked_for(tmp_path):
    paths, parts = [], [build_columns(seed) for seed in range(3)]
    for number, part in enumerate(parts):
        paths.append(tmp_path / f"{number}")
        write_whole(paths[-1], pack(part))
    rows = [25, 3, 11, 3, 29, 0]
    found = Rows(paths, SIZE).take(torch.tensor(rows))
    for place, row in enumerate(rows):
        part = parts[row // SIZE]
        assert torch.equal(found["image"][place], part["image"][row % SIZE])
        assert found["caption"][place] == part["caption"][row % SIZE]


def test_the_last_file_may_have_fewer_rows(tmp_path):
    for number, size in enumerate((4, 2)):
        write_whole(tmp_path / f"{number}", pack({"label": torch.arange(size) + 10 * number}))
    rows = Rows([tmp_path / "0", tmp_path / "1"], 4)
    assert rows.take(torch.tensor([5, 3]))["label"].tolist() == [11, 3]


def test_numbers_take_no_more_bytes_than_they_need(tmp_path):
    write_whole(tmp_path / "a", pack(build_columns()))
    with safe_open(tmp_path / "a", "pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in ("label", "middle", "large")}
    assert kinds == {"label": torch.int16, "middle": torch.int32, "large": torch.int64}


def test_the_same_rows_make_the_same_bytes():
    assert pack(build_columns()) == pack(build_columns())
    assert pack(build_columns()) != pack(build_columns(1))


def test_texts_that_are_all_empty_come_back(tmp_path):
    write_whole(tmp_path / "a", pack({"caption": ["", ""]}))
    assert Shard(tmp_path / "a").take(torch.tensor([1, 0]))["caption"] == ["", ""]


def test_a_reader_is_handed_to_another_process_without_its_open_files(tmp_path):
    write_whole(tmp_path / "0", pack(build_columns()))
    rows = Rows([tmp_path / "0"], SIZE)
    rows.take(torch.tensor([1]))
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    assert_rows(pickle.loads(sent).take(torch.tensor([1])), build_columns(), [1])


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", b"before")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"


@pytest.mark.parametrize("contents", [None, b"no shard", b""])
def test_what_is_no_shard_is_named(tmp_path, contents):
    if contents is not None:
        (tmp_path / "a").write_bytes(contents)
    with pytest.raises(ValueError, match=r"/a cannot be read: .*expected a file of `mmdiffusion prepare`"):
        Shard(tmp_path / "a")
