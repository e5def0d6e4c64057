"""Batches from a cache: what a training would have made itself, from this data and these networks or not at all."""

import logging
import math

import pytest
import torch

from mmdiffusion.data import Cache, Digits, Prepared
from mmdiffusion.data.encoding import Processes, encode_split
from mmdiffusion.data.prepared import SPLITS
from mmdiffusion.types import FeatureSpec
from tests.codecs.test_encoder import Colours
from tests.data.in_files import SIZES, InFiles
from tests.data.test_encoding import Brightness
from tests.helpers import Oracle, build_trainer


def fill(folder, data, encoders=(), splits=SPLITS, **settings):
    cache = Cache(str(folder), **{"shard_rows": 7} | settings)
    recipe = cache.recipe(list(encoders), [])
    for split in splits:
        encode_split(data, split, cache, recipe, Processes(), lambda _: None)
    return cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Pictures as `Brightness` sees them."""
    return fill(tmp_path_factory.mktemp("cache"), InFiles(), [Brightness()])


@pytest.fixture
def damaged(tmp_path):
    cache = fill(tmp_path, InFiles(), [Brightness()])
    file = tmp_path / "train" / "shard-00002.safetensors"
    stored = bytearray(file.read_bytes())
    stored[-1] ^= 1
    file.write_bytes(stored)
    return cache


def open_cache(cache, data=None, codec=None):
    return Prepared(data or InFiles(), cache, [codec or Brightness()])


def test_batches_hold_what_a_training_would_make_itself(cache):
    data, codec = InFiles(), Brightness()
    draws = [5, 0, 22, 23 + 4]
    found = open_cache(cache).split("train").__getitems__(draws)
    own = data.split("train").__getitems__(draws)
    assert torch.equal(codec.of(found)["tokens"], codec.encode(data.on_after_batch_transfer(own, 0)["image"]))
    assert found["index"].tolist() == own["index"].tolist() == [5, 0, 22, 4]
    assert found["caption"] == own["caption"]
    assert torch.equal(found["label"], own["label"])
    assert "image" not in found


def test_views_come_in_turn_as_a_training_without_a_cache_draws_them(tmp_path):
    data = InFiles(is_random=True)
    stored = Prepared(data, fill(tmp_path, data, views=2)).split("train")
    assert len(stored) == 23
    epochs = [range(epoch * 23, epoch * 23 + 23) for epoch in range(3)]
    first, second, third = (stored.__getitems__(epoch)["image"] for epoch in epochs)
    assert torch.equal(first, data.split("train").__getitems__(epochs[0])["image"])
    assert torch.equal(second, data.split("train").__getitems__(epochs[1])["image"])
    assert torch.equal(third, first)
    assert not torch.equal(first, second)


def test_stored_pixels_are_bytes_that_become_floats(tmp_path):
    data = InFiles()
    prepared = Prepared(data, fill(tmp_path, data))
    batch = next(iter(prepared.val_dataloader()))
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(prepared.on_after_batch_transfer(batch, 0)["image"], data.rows("val", range(4))["image"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_hand_out_every_sample(cache, num_workers):
    prepared = open_cache(cache, InFiles(batch_size=5, num_workers=num_workers))
    batches = list(prepared.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [5] * 4
    assert len({int(index) for batch in batches for index in batch["index"]}) == 20
    assert torch.cat([batch["index"] for batch in prepared.test_dataloader()]).tolist() == list(range(11))


def test_what_is_compared_with_comes_from_the_data(cache):
    prepared = open_cache(cache)
    assert torch.equal(prepared.rows("val", [3, 12])["image"], InFiles().rows("val", [3, 12])["image"])
    assert prepared.num_rows("val") == 10
    assert isinstance(prepared.source, InFiles)


def test_features_are_in_batches_rows_columns_and_spec(tmp_path):
    data, tower = Digits(), Colours()
    prepared = Prepared(data, fill(tmp_path, data, features={"feature": tower}, shard_rows=500))
    assert prepared.spec["feature"] == FeatureSpec((2,))
    expected = tower(data.columns("test")["image"]) * math.sqrt(2)
    torch.testing.assert_close(prepared.columns("test")["feature"], expected)
    torch.testing.assert_close(prepared.rows("test", [359, 360 + 3])["feature"], expected[[359, 3]])
    torch.testing.assert_close(prepared.split("test").__getitems__([7])["feature"], expected[[7]])
    assert "image" in prepared.rows("test", [0])


# Refused -------------------------------------------------------------------------------------------------------


def test_a_cache_of_another_codec_is_refused(cache):
    codec = Brightness()
    codec.steps = 3
    with pytest.raises(
        ValueError, match=r"train was prepared with encoders\.image\.identity \w+: this configuration has"
    ):
        open_cache(cache, codec=codec)


def test_a_cache_without_what_the_method_reads_is_refused(cache):
    with pytest.raises(ValueError, match=r"prepared with encoders\.image .*Brightness.*: this configuration has none"):
        Prepared(InFiles(), cache)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (InFiles(side=6), r"data\.spec\.image\.size 8: this configuration has 6"),
        (Digits(), "data.class InFiles: this configuration has Digits"),
        (InFiles(is_random=True), r"data\.drawn at random none: this configuration has \['image'\]"),
        (InFiles(look=1), r"prepared from other data: image of rows \[0, 7, 15, 22\] differs"),
    ],
)
def test_a_cache_of_other_data_is_refused(cache, other, message):
    with pytest.raises(ValueError, match=message):
        Prepared(other, cache, [Brightness()])


def test_a_cache_of_fewer_rows_is_refused(cache, monkeypatch):
    monkeypatch.setitem(SIZES, "train", 30)
    with pytest.raises(ValueError, match=r"data\.rows 23: this configuration has 30"):
        open_cache(cache)


def test_a_split_in_the_place_of_another_is_refused(tmp_path):
    cache = fill(tmp_path, InFiles(), [Brightness()])
    for old, new in (("val", "x"), ("test", "val"), ("x", "test")):
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(ValueError, match=r"val was prepared with data\.split test: this configuration has val"):
        open_cache(cache)


def test_a_cache_that_is_not_there_or_incomplete_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train holds no cache: manifest\.json is missing; make one with"):
        open_cache(Cache(str(tmp_path)))
    cache = Cache(str(tmp_path), shard_rows=7)
    recipe = cache.recipe([Brightness()], [])
    encode_split(InFiles(), "train", cache, recipe, Processes(0, 2), lambda _: None)
    with pytest.raises(ValueError, match="train is incomplete: run `mmdiffusion prepare` again, it goes on where"):
        open_cache(cache)


def test_a_damaged_file_is_named_before_a_training(damaged):
    message = r"train/shard-00002\.safetensors is damaged: its SHA-256 .*prepare` again, which writes it anew"
    with pytest.raises(ValueError, match=message):
        open_cache(damaged).prepare_data()
    fill(damaged.folder, InFiles(), [Brightness()])
    open_cache(damaged).prepare_data()


# Training ------------------------------------------------------------------------------------------------------


class Reader(Oracle):
    """Keeps the entries of its batches."""

    def losses(self, batch, generator):
        self.entries = {name: getattr(values, "dtype", None) for name, values in batch.items()}
        return super().losses(batch, generator)


def test_a_training_reads_it_and_says_so(cache, tmp_path, caplog, monkeypatch):
    method = Reader()
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        build_trainer(tmp_path, max_steps=2).fit(method, datamodule=open_cache(cache))
    assert method.entries == {
        **{"index": torch.int64, "label": torch.int64, "image.tokens": torch.int64, "caption": None},
    }
    assert f"batches come from {cache.folder}: train 23, val 10, test 11; image as Brightness encodes it" in caplog.text
    assert "cache checked: 0 MB" in caplog.text


def test_a_training_without_a_full_batch_is_refused(cache, tmp_path):
    with pytest.raises(ValueError, match="batch_size is 24: expected at most 23"):
        build_trainer(tmp_path, max_steps=2).fit(Reader(), datamodule=open_cache(cache, InFiles(batch_size=24)))
