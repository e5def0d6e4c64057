"""The reader of scenes against scenes whose objects are known; it sees pixels only."""

import itertools

import pytest
import torch
from scipy import ndimage

from mmdiffusion.data import Shapes
from mmdiffusion.data.scenes import SCENE, Looks, draw
from mmdiffusion.metrics import CaptionAccuracy, SceneReader
from mmdiffusion.metrics.scenes import OUTLINES, PARTS
from mmdiffusion.types import LabelSpec

EVERY = torch.tensor(list(itertools.product(range(5), range(6), range(2), range(4))))
RED_CIRCLE, BLUE_SQUARE, CYAN_CROSS, NONE = (0, 0, 1, 0), (1, 2, 0, 3), (4, 5, 1, 1), (-1, -1, -1, -1)


@pytest.fixture(scope="module")
def shapes():
    return Shapes(num_train=2000)


@pytest.fixture(scope="module")
def reader():
    return SceneReader(SCENE)


def accuracy(images, attributes, part="all"):
    metric = CaptionAccuracy(part)
    metric.describe({"attributes": SCENE})
    metric.update(images, torch.as_tensor(attributes))
    return float(metric.compute())


def pictures(*scenes, offset=0.0, stretch=0.0, shade=0.5):
    """Scenes in [-1, 1], from lists of objects."""
    attributes = torch.tensor(scenes)
    size, count = attributes.shape[:2]
    looks = Looks(torch.full((size, count, 2), offset), torch.full((size, count), stretch), torch.full((size,), shade))
    return draw(attributes, looks)[0].float() / 127.5 - 1


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blurred(images, deviation):
    return torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, deviation, deviation), mode="nearest"))


# The bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_scenes_are_read_without_error(shapes, split):
    columns = shapes.columns(split)
    assert accuracy(columns["image"], columns["attributes"]) == 1


@pytest.mark.parametrize("offset", [-1.0, 1.0])
@pytest.mark.parametrize("stretch", [-1.0, 1.0])
@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_every_object_is_read_at_the_limits_of_its_looks(reader, offset, stretch, shade):
    scenes = [[tuple(thing), NONE] for thing in EVERY.tolist()]
    found = reader.read(pictures(*scenes, offset=offset, stretch=stretch, shade=shade))
    assert found == [[thing] for thing, _ in scenes]


SPOILED = {
    "noise": lambda x: x + 0.1 * normal(*x.shape),
    "blur": lambda x: blurred(x, 0.7),
    "duller": lambda x: 0.85 * x,
    "brighter": lambda x: 1.15 * x,
    "tinted": lambda x: x + 0.1 * normal(len(x), 3, 1, 1).sign(),
    "all": lambda x: blurred(x, 0.5) * 0.95 + 0.05 * normal(len(x), 3, 1, 1).sign() + 0.1 * normal(*x.shape),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_spoiled_scenes_are_read_almost_as_well(shapes, spoil):
    columns = shapes.columns("test")
    assert accuracy(spoil(columns["image"]), columns["attributes"]) >= 0.99


def test_where_it_stops_to_read(shapes):
    columns = shapes.columns("val")
    assert accuracy(columns["image"] + normal(*columns["image"].shape), columns["attributes"]) < 0.5


def test_the_captions_of_others_are_near_chance(shapes):
    columns = shapes.columns("test")
    assert accuracy(columns["image"], columns["attributes"].roll(1, 0)) < 0.02


# What counts -----------------------------------------------------------------------------------------------------


def test_objects_are_a_set():
    image = pictures([RED_CIRCLE, BLUE_SQUARE])
    assert accuracy(image, [[RED_CIRCLE, BLUE_SQUARE]]) == accuracy(image, [[BLUE_SQUARE, RED_CIRCLE]]) == 1


@pytest.mark.parametrize(
    "told", [[RED_CIRCLE, NONE], [RED_CIRCLE, CYAN_CROSS], [RED_CIRCLE, RED_CIRCLE]], ids=["further", "other", "twice"]
)
@pytest.mark.parametrize("part", ["all", "shape", "colour"])
def test_a_further_a_missing_or_another_object_is_wrong(told, part):
    assert accuracy(pictures([RED_CIRCLE, BLUE_SQUARE]), [told], part) == 0


def test_a_third_object_is_wrong():
    image = pictures([RED_CIRCLE, BLUE_SQUARE, CYAN_CROSS])
    assert accuracy(image, [[RED_CIRCLE, BLUE_SQUARE]]) == 0


@pytest.mark.parametrize("column", range(4))
def test_a_part_is_right_or_wrong_by_itself(column):
    told = list(RED_CIRCLE)
    told[column] = 1 - told[column]
    right = {part: accuracy(pictures([RED_CIRCLE, NONE]), [[tuple(told), NONE]], part) for part in PARTS}
    wrong = [part for part, value in right.items() if value == 0]
    named = ("shape", "colour", "size", "position")[column]
    assert wrong == ["all", named, *(["layout"] if named != "colour" else [])]


def test_swapped_colours_leave_every_part_right():
    blue_circle, red_square = (0, 2, 1, 0), (1, 0, 0, 3)
    image, told = pictures([RED_CIRCLE, BLUE_SQUARE]), [[blue_circle, red_square]]
    assert [accuracy(image, told, part) for part in PARTS] == [0, 1, 1, 1, 1, 1]


def test_a_layout_is_right_only_if_one_object_has_all_of_it():
    large_square, small_circle = (1, 2, 0, 0), (0, 0, 1, 3)
    image = pictures([RED_CIRCLE, BLUE_SQUARE])
    assert accuracy(image, [[large_square, small_circle]], "layout") == 0
    assert accuracy(image, [[large_square, small_circle]], "shape") == 1


def test_specks_are_no_objects_and_patches_are():
    image = pictures([RED_CIRCLE, NONE])
    speck, patch = image.clone(), image.clone()
    speck[0, :, 24:27, 24:27] = torch.tensor([1.0, 0.6, -0.6])[:, None, None]
    patch[0, :, 22:27, 22:27] = torch.tensor([1.0, 0.6, -0.6])[:, None, None]
    assert accuracy(speck, [[RED_CIRCLE, NONE]]) == 1
    assert accuracy(patch, [[RED_CIRCLE, NONE]]) == 0


def test_an_object_of_two_colours_is_two_objects(reader):
    image, other = pictures([(0, 0, 1, 0), NONE]), pictures([(0, 2, 1, 0), NONE])
    image[..., 8:] = other[..., 8:]
    (found,) = reader.read(image)
    assert sorted(colour for _, colour, *_ in found) == [0, 2]


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_an_empty_picture_shows_nothing(reader, value):
    assert reader.read(torch.full((2, 3, 32, 32), value)) == [[], []]
    red = (torch.tensor(SCENE.palette[0]) / 127.5 - 1)[:, None, None].expand(1, 3, 32, 32)
    assert reader.read(red) == [[]]
    assert reader.read(torch.zeros(0, 3, 32, 32)) == []


def test_the_size_of_the_picture_does_not_matter(reader, shapes):
    columns = shapes.columns("val")
    larger = columns["image"].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert accuracy(larger, columns["attributes"]) == 1


@pytest.mark.parametrize("outline", OUTLINES.values(), ids=OUTLINES)
def test_outlines_have_area_one_and_their_centre_at_the_origin(outline):
    line = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    inside = outline(x, y).double()
    assert inside.mean() * 4 == pytest.approx(1, abs=2e-3)
    assert (inside * x).mean() == pytest.approx(0, abs=1e-3)
    assert (inside * y).mean() == pytest.approx(0, abs=1e-3)


# The contract ----------------------------------------------------------------------------------------------------


def test_names_and_protocol(shapes):
    metric = CaptionAccuracy("colour")
    assert metric.name() == "colour_accuracy[scene-reader]"
    assert CaptionAccuracy().name() == "caption_accuracy[scene-reader]"
    assert metric.inputs == ("image", "reference_attributes"), "a caption is nowhere to be seen"
    assert not metric.fit_inputs
    metric.describe(shapes.spec)
    metric.update(pictures([RED_CIRCLE, NONE]), torch.tensor([[RED_CIRCLE, NONE]]))
    metric.compute()
    protocol = metric.protocol()
    assert (protocol["num_samples"], protocol["part"], protocol["entry"]) == (1, "colour", "image")
    assert CaptionAccuracy(entry="reconstruction").inputs == ("reconstruction", "reference_attributes")
    assert "scene-reader: nearest palette colour" in str(protocol["reader"])


def test_samples_add_up_and_are_forgotten(shapes):
    columns, metric = shapes.columns("val"), CaptionAccuracy()
    metric.describe(shapes.spec)
    metric.update(columns["image"][:30], columns["attributes"][:30])
    metric.update(columns["image"][:10], columns["attributes"][:10].flip(0).roll(1, 0))
    assert 0.75 <= metric.compute() < 1
    assert metric.num_samples == 40
    metric.reset_samples()
    metric.update(columns["image"][:10], columns["attributes"][:10])
    assert metric.compute() == 1


def test_mistakes_are_named(shapes):
    metric = CaptionAccuracy()
    with pytest.raises(ValueError, match="expected describe"):
        metric.update(torch.zeros(1, 3, 32, 32), torch.tensor([[NONE]]))
    with pytest.raises(ValueError, match=r"caption_accuracy.*spec has label, expected data with attributes"):
        metric.describe({"label": LabelSpec(3)})
    with pytest.raises(ValueError, match="shapes has 'star': expected some of circle, square"):
        SceneReader(type(SCENE)(**vars(SCENE) | {"shapes": ("star",)}))
    with pytest.raises(ValueError, match="found 0 samples"):
        metric.compute()
