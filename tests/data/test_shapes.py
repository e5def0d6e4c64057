"""The data module: what a batch holds, what each split shows, and what a scene depends on."""

import itertools
from collections import Counter

import pytest
import torch

from mmdiffusion.data import Shapes
from mmdiffusion.data.scenes import SCENE
from mmdiffusion.data.shapes import COMBINATIONS, PAIRS, home
from mmdiffusion.types import ImageSpec, LabelSpec, SegmentationSpec

NAMES = ["attributes", "caption", "combination", "image", "index", "label", "segmentation"]
SPLITS = pytest.mark.parametrize("split", ["train", "val", "test"])


ATTRIBUTES = list(itertools.product(range(5), range(6), range(2), range(4)))
"""Shape, colour, size and position of every combination, in the order of `COMBINATIONS`."""


@pytest.fixture(scope="module")
def shapes():
    return Shapes(batch_size=16, num_train=1200)


@pytest.fixture(scope="module")
def pairs_held_out():
    return Shapes(batch_size=16, num_train=1200, held_out="pairs")


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


def owners(data):
    """The split of every combination as a mapping from its four attributes: 0 training, 1 validation, 2 test."""
    return dict(zip(ATTRIBUTES, data.home.tolist(), strict=True))


def shown(columns):
    """Combinations of every object of each scene."""
    return [[tuple(row) for row in scene if row[0] >= 0] for scene in columns["attributes"].tolist()]


def test_combinations_are_numbered_as_their_captions():
    assert [tuple(parse(caption)[0]) for caption in COMBINATIONS] == ATTRIBUTES


def test_held_out_combinations_leave_every_two_attributes_together_in_training():
    split_of = dict(zip(ATTRIBUTES, home("combinations").tolist(), strict=True))
    assert Counter(split_of.values()) == {0: 160, 1: 40, 2: 40}
    for first, second in itertools.combinations(range(4), 2):
        number = Counter((c[first], c[second]) for c, split in split_of.items() if split == 0)
        assert set(number) == {(c[first], c[second]) for c in ATTRIBUTES}
        assert min(number.values()) >= 5
    for split in (1, 2):
        colours = Counter((s, size, at) for (s, _, size, at), own in split_of.items() if own == split)
        assert set(colours.values()) == {1}
        assert len(colours) == 40
        pairs = Counter(c[:2] for c, own in split_of.items() if own == split)
        assert set(pairs.values()) == {1, 2}


def test_held_out_pairs_leave_every_shape_and_colour_in_training():
    split_of = dict(zip(ATTRIBUTES, home("pairs").tolist(), strict=True))
    pairs = [{c[:2] for c, split in split_of.items() if split == own} for own in range(3)]
    assert [len(own) for own in pairs] == [20, 5, 5]
    assert len(set.union(*pairs)) == 30
    for column in range(2):
        assert min(Counter(pair[column] for pair in pairs[0]).values()) >= 3


@pytest.mark.parametrize("held_out", ["combinations", "pairs"])
def test_training_shows_its_own_and_no_other(shapes, pairs_held_out, held_out):
    data = {"combinations": shapes, "pairs": pairs_held_out}[held_out]
    found = {combination for scene in shown(data.columns("train")) for combination in scene}
    assert found == {combination for combination, split in owners(data).items() if split == 0}


@pytest.mark.parametrize("held_out", ["combinations", "pairs"])
@pytest.mark.parametrize(("split", "number"), [("val", 1), ("test", 2)])
def test_every_other_scene_shows_one_combination_of_its_split(shapes, pairs_held_out, held_out, split, number):
    data = {"combinations": shapes, "pairs": pairs_held_out}[held_out]
    split_of, columns = owners(data), data.columns(split)
    own = [[split_of[combination] for combination in scene] for scene in shown(columns)]
    assert {tuple(sorted(numbers)) for numbers in own} == {(number,), (0, number)}
    first = [numbers[0] == number for numbers in own if len(numbers) == 2]
    assert 0.4 < sum(first) / len(first) < 0.6, "the split's own is named first as often as second"
    assert not set(columns["caption"]) & set(data.columns("train")["caption"])
    assert {scene[0] for scene in shown(columns) if len(scene) == 1} == {c for c, s in split_of.items() if s == number}


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
    assert (shares * 30 - 1).abs().max() < 0.4


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
