"""The data module: what a batch holds, what each split shows, and what a scene depends on."""

import pytest
import torch

from mmdiffusion.data import Shapes
from mmdiffusion.data.scenes import SCENE
from mmdiffusion.data.shapes import HELD_OUT, PAIRS, SEEN
from mmdiffusion.types import ImageSpec, LabelSpec, SegmentationSpec

NAMES = ["attributes", "caption", "combination", "image", "index", "label", "segmentation"]
SPLITS = pytest.mark.parametrize("split", ["train", "val", "test"])


@pytest.fixture(scope="module")
def shapes():
    return Shapes(batch_size=16, num_train=1200)


def pairs_of(attributes):
    """Shape and colour of every object of each scene, as the labels count them."""
    return [[int(s) * 6 + int(c) for s, c, *_ in scene if s >= 0] for scene in attributes]


def parse(caption):
    """Rows of attributes of a caption, read word by word."""
    rows = []
    for phrase in caption.split(" and "):
        a, size, colour, shape, at, the, *position = phrase.split()
        assert (a, at, the) == ("a", "at", "the")
        rows.append([SCENE.shapes.index(shape), SCENE.colours.index(colour)])
        rows[-1] += [SCENE.sizes.index(size), SCENE.positions.index(" ".join(position))]
    return rows + [[-1] * 4] * (2 - len(rows))


def test_batch_fits_the_spec(shapes):
    spec, batch = shapes.spec, next(iter(shapes.train_dataloader()))
    assert sorted(batch) == NAMES
    assert sorted(spec) == sorted({*NAMES} - {"index"})
    assert spec["image"] == ImageSpec(3, 32)
    assert spec["label"] == LabelSpec(30, PAIRS)
    assert spec["segmentation"] == SegmentationSpec(("background", *SCENE.shapes), 32)
    assert batch["image"].shape == (16, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["attributes"].shape == (16, 2, 4)
    assert batch["segmentation"].shape == (16, 32, 32)
    assert {batch[name].dtype for name in ("attributes", "segmentation", "label", "index")} == {torch.int64}


def test_sizes(shapes):
    assert [len(shapes.split(name)) for name in ("train", "val", "test")] == [1200, 500, 1000]
    assert Shapes().num_rows("val") == 500
    assert Shapes().sizes["train"] == 10_000


def test_words_are_those_of_the_captions(shapes):
    text = shapes.spec["caption"]
    words = [caption.split() for caption in shapes.columns("train")["caption"]]
    assert {word for caption in words for word in caption} == set(text.vocabulary)
    assert len(set(text.vocabulary)) == len(text.vocabulary) == 21
    assert max(map(len, words)) == text.max_words == 17


@SPLITS
def test_captions_tell_the_attributes_and_labels_the_first_object(shapes, split):
    columns = shapes.columns(split)
    assert [parse(caption) for caption in columns["caption"]] == columns["attributes"].tolist()
    assert columns["label"].tolist() == [pairs[0] for pairs in pairs_of(columns["attributes"])]
    names = [" ".join(caption.split()[2:4]) for caption in columns["caption"]]
    assert names == [PAIRS[label] for label in columns["label"]]


@SPLITS
def test_the_map_is_where_pictures_have_colour(shapes, split):
    columns = shapes.columns(split)
    image, is_empty = (columns["image"] + 1) * 127.5, columns["segmentation"] == 0
    torch.testing.assert_close(image, image.round(), atol=1e-4, rtol=0)
    grey = image[:, :, 0, 15:17].mean((1, 2)).round()
    assert (grey >= 25).all()
    assert (grey <= 100).all()
    saturation = image.amax(1) - image.amin(1)
    assert saturation[is_empty].max() <= 190 / 2, "the most saturated colour on half of a pixel"
    assert saturation[~is_empty].min() >= 125 / 2 - 1, "the least saturated one"


# Combinations ----------------------------------------------------------------------------------------------------


def test_held_out_pairs_are_apart_and_every_shape_and_colour_remains():
    held = [*HELD_OUT["val"], *HELD_OUT["test"]]
    assert len(set(held)) == 10
    assert set(held) | set(SEEN) == set(PAIRS)
    assert len(SEEN) == 20
    for words in (SCENE.shapes, SCENE.colours):
        assert all(sum(word in pair.split() for pair in SEEN) >= 3 for word in words)


def test_training_shows_every_seen_pair_and_no_other(shapes):
    found = {PAIRS[pair] for pairs in pairs_of(shapes.columns("train")["attributes"]) for pair in pairs}
    assert found == set(SEEN)


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_other_scene_shows_one_pair_of_its_split(shapes, split):
    columns = shapes.columns(split)
    own = [[PAIRS[pair] in HELD_OUT[split] for pair in pairs] for pairs in pairs_of(columns["attributes"])]
    assert all(sum(is_own) == 1 for is_own in own)
    strange = [[PAIRS[pair] not in (*HELD_OUT[split], *SEEN) for pair in p] for p in pairs_of(columns["attributes"])]
    assert not any(map(any, strange))
    first = [is_own[0] for is_own in own if len(is_own) == 2]
    assert 0.4 < sum(first) / len(first) < 0.6, "the pair of the split is named first as often as second"
    assert not set(columns["caption"]) & set(shapes.columns("train")["caption"])


@SPLITS
def test_two_objects_differ_in_place_and_in_shape_or_colour(shapes, split):
    attributes = shapes.columns(split)["attributes"]
    both = attributes[attributes[:, 1, 0] >= 0]
    assert 0.45 < len(both) / len(attributes) < 0.55
    assert (both[:, 0, 3] != both[:, 1, 3]).all()
    assert (both[:, 0, :2] != both[:, 1, :2]).any(1).all()
    assert (attributes[:, 0] >= 0).all()


def test_attributes_are_spread_evenly(shapes):
    attributes = shapes.columns("train")["attributes"]
    objects = attributes.flatten(0, 1)
    objects = objects[objects[:, 0] >= 0]
    for column, count in ((2, 2), (3, 4)):
        shares = objects[:, column].bincount(minlength=count) / len(objects)
        assert (shares * count - 1).abs().max() < 0.15
    shares = (objects[:, 0] * 6 + objects[:, 1]).bincount(minlength=30) / len(objects)
    assert (shares[shares > 0] * 20 - 1).abs().max() < 0.4


# Determinism -----------------------------------------------------------------------------------------------------


def test_a_scene_is_a_function_of_split_and_index(shapes):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = Shapes(num_train=40, seed=3)
    again.split("test")
    columns, expected = again.columns("train"), shapes.columns("train")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(columns["image"], expected["image"][:40])
    assert columns["caption"] == expected["caption"][:40]


def test_the_seed_orders_scenes(shapes):
    orders = [
        next(iter(data.train_dataloader()))["index"].tolist() for data in (shapes, Shapes(16, num_train=1200, seed=1))
    ]
    assert orders[0] != orders[1]


def test_no_scene_is_drawn_twice(shapes):
    pictures = torch.cat([shapes.columns(split)["image"].flatten(1) for split in ("train", "val", "test")])
    assert len(pictures.unique(dim=0)) == 2700


def test_one_sample_equals_a_row_of_a_batch(shapes):
    split = shapes.split("val")
    sample, batch = split[3], split.__getitems__([7, 3])
    assert sorted(sample) == sorted(batch)
    for name, values in batch.items():
        assert torch.equal(sample[name], values[1]) if isinstance(values, torch.Tensor) else sample[name] == values[1]


def test_memory_holds_bytes(shapes):
    columns = shapes.split("train").columns
    assert columns["image"].dtype == columns["segmentation"].dtype == torch.uint8


def test_spec_is_read_back_from_a_checkpoint(tmp_path, shapes):
    torch.save(shapes.spec, tmp_path / "spec.ckpt")
    assert torch.load(tmp_path / "spec.ckpt", weights_only=True) == shapes.spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"num_train": 0}, "num_train is 0: expected at least 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Shapes(**options)
