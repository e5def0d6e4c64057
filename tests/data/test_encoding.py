"""Filling a cache: the same bytes however it came about; what cannot be stored is refused."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from mmdiffusion.codecs import HashTower, TokenCodec
from mmdiffusion.data import Cache, Digits
from mmdiffusion.data.encoding import Processes, encode_split, pieces, read, shares
from mmdiffusion.types import TokenSpec
from tests.codecs.test_encoder import Colours
from tests.data.in_files import SIZES, InFiles


class Brightness(TokenCodec):
    """The mean of an image, in steps of 16, after a nap; counts what it has encoded."""

    def __init__(self, nap=0.0):
        super().__init__(TokenSpec(16, (1,)), "image")
        self._nap, self._count = nap, 0

    def encode(self, data):
        time.sleep(self._nap)
        self._count += len(data)
        return ((data.mean((1, 2, 3)) + 1) * 8).long().clamp(0, 15)[:, None]

    def decode(self, tokens):
        return (tokens / 8 - 1)[..., None, None].expand(-1, 3, 8, 8)


def fill(folder, data=None, split="train", codec=None, processes=Processes(), needed=(), **settings):  # noqa: B008
    data, codec = data or InFiles(), codec or Brightness()
    cache = Cache(str(folder), **{"shard_rows": 5} | settings)
    done = []
    is_complete = encode_split(data, split, cache, cache.recipe([codec], needed), processes, done.append)
    assert sum(done) == sum(map(len, shares(data, split, cache, processes).values()))
    return is_complete


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.rglob("*"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process writes in one go."""
    path = tmp_path_factory.mktemp("whole")
    assert fill(path)
    return contents(path / "train")


def test_two_processes_write_what_one_writes(tmp_path, whole):
    assert not fill(tmp_path, processes=Processes(1, 2))
    assert fill(tmp_path, processes=Processes(0, 2))
    assert contents(tmp_path / "train") == whole


def test_worker_processes_change_nothing(tmp_path, whole):
    assert fill(tmp_path, InFiles(num_workers=2))
    assert contents(tmp_path / "train") == whole


def test_a_killed_process_loses_one_shard_at_most(tmp_path, whole):
    process = multiprocessing.get_context("fork").Process(
        target=fill, args=(tmp_path,), kwargs={"codec": Brightness(0.1)}
    )
    process.start()
    folder, deadline = tmp_path / "train", time.monotonic() + 30
    while len(list(folder.glob("*.json"))) < 3 and time.monotonic() < deadline:  # the manifest, and two notes
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not set(whole) <= set(contents(folder)), "it was through before it was killed"
    codec = Brightness()
    assert fill(tmp_path, codec=codec)
    assert contents(folder) == whole
    assert codec._count <= SIZES["train"] - 2 * 5


def test_nothing_is_encoded_twice(tmp_path):
    fill(tmp_path)
    codec = Brightness()
    assert fill(tmp_path, codec=codec)
    assert codec._count == 0


def test_another_codec_does_not_go_on_in_the_same_folder(tmp_path):
    fill(tmp_path, processes=Processes(0, 2))
    changed = Brightness()
    changed.steps = 3
    with pytest.raises(
        ValueError, match=r"prepared with encoders\.image\.identity \w{16}: this configuration has \w{16}"
    ):
        fill(tmp_path, codec=changed)


def test_another_split_does_not_go_on_in_the_same_folder(tmp_path):
    fill(tmp_path, split="val")
    (tmp_path / "val").rename(tmp_path / "test")
    with pytest.raises(ValueError, match=r"prepared with data\.split val: this configuration has test"):
        fill(tmp_path, split="test")


def test_other_files_do_not_go_on_in_the_same_folder(tmp_path):
    fill(tmp_path, processes=Processes(0, 2))
    with pytest.raises(ValueError, match="train was prepared from other data: image of rows"):
        fill(tmp_path, InFiles(look=1))


def test_random_crops_are_refused_or_stored_several_times(tmp_path):
    data = InFiles(is_random=True)
    with pytest.raises(ValueError, match=r"cache\.views is 1, and the training split draws image at random: .*central"):
        fill(tmp_path, data)
    assert not list(tmp_path.iterdir())
    assert fill(tmp_path, data, views=3)
    assert fill(tmp_path, data, "val", views=3), "views are those of training samples"
    with pytest.raises(ValueError, match=r"cache\.views is 3: expected 1, the training split draws nothing at random"):
        fill(tmp_path / "other", views=3)


def test_batches_are_read_in_bytes_and_as_methods_take_them():
    (stored, batch), *_ = read(InFiles(), "val", [[3, 1]], torch.device("cpu"))
    assert (stored["image"].dtype, batch["image"].dtype) == (torch.uint8, torch.float32)
    torch.testing.assert_close(batch["image"], InFiles().rows("val", [3, 1])["image"])


def test_pieces_and_shares_cover_all_rows_once():
    assert [list(piece) for piece in pieces(range(3, 8), 2)] == [[3, 4], [5, 6], [7]]
    cache = Cache("unused", shard_rows=4, views=2)
    taken = [shares(InFiles(), "train", cache, Processes(rank, 3)) for rank in range(3)]
    rows = [row for share in taken for own in share.values() for row in own]
    assert sorted(rows) == list(range(2 * SIZES["train"]))
    assert list(taken[1]) == [1, 4, 7, 10]


def test_what_several_networks_make_is_stored(tmp_path):
    data = Digits()
    cache = Cache(str(tmp_path), features={"feature": Colours()}, shard_rows=100)
    recipe = cache.recipe([HashTower(data.spec, width=4)], ["caption"])
    assert encode_split(data, "val", cache, recipe, Processes(), lambda _: None)
    assert set(recipe.columns(*next(read(data, "val", [[0]], torch.device("cpu"))))) == {
        *("index", "image", "label", "caption", "feature"),
        *("caption.tokens", "caption.mask", "caption.summary"),
    }


def test_an_unfinished_file_of_a_shard_is_none(tmp_path, whole):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "shard-00001.safetensors.unfinished").write_bytes(b"half")
    assert fill(tmp_path)
    assert contents(Path(tmp_path / "train")) == whole
