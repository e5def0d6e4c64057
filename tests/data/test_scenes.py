"""Drawing against the geometry of the shapes: areas, places, symmetries, edges."""

import itertools
import math

import pytest
import torch

from mmdiffusion.data.scenes import SCENE, Looks, describe, draw

PALETTE = torch.tensor(SCENE.palette).double()
EVERY = torch.tensor(list(itertools.product(range(5), range(6), range(2), range(4))))
SHAPES = pytest.mark.parametrize("shape", range(5), ids=SCENE.shapes)


def looks(size, offset=0.0, stretch=0.0):
    return Looks(torch.full((size, 2, 2), offset), torch.full((size, 2), stretch), torch.zeros(size))


def one(things):
    """Scenes of one object each."""
    return torch.stack([things, torch.full_like(things, -1)], dim=1)


def coverage(things, **options):
    """Share of each pixel that shows the object, worked out from the picture: the background is (25, 25, 25)."""
    image, _ = draw(one(things), looks(len(things), **options))
    contrast = (PALETTE[things[:, 1]] - 25)[:, :, None, None]
    return ((image.double() - 25) * contrast).sum(1) / contrast.square().sum(1)


def inside(shape, x, y, side):
    """Whether a point lies in a shape of area side**2, by its textbook outline."""
    match SCENE.shapes[shape]:
        case "circle":
            return x**2 + y**2 < side**2 / math.pi
        case "square":
            return (x.abs() < side / 2) & (y.abs() < side / 2)
        case "triangle":  # base and height h with h^2 / 2 = side^2, the tip up
            height = math.sqrt(2) * side
            return (y < height / 2) & (x.abs() < (y + height / 2) / 2)
        case "diamond":
            return x.abs() + y.abs() < side / math.sqrt(2)
        case "cross":  # five squares
            unit = side / math.sqrt(5)
            lengthwise, crosswise = (x.abs() < 1.5 * unit), (y.abs() < 1.5 * unit)
            return (lengthwise & (y.abs() < unit / 2)) | (crosswise & (x.abs() < unit / 2))
        case name:
            raise ValueError(name)


@SHAPES
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(("offset", "stretch"), [(0.0, 0.0), (0.37, 1.0), (-0.61, -1.0)])
def test_coverage_is_that_of_a_fine_raster(shape, size, offset, stretch):
    """Independent truth: 16 x 16 points in each pixel. A smooth edge errs by less than a third of a pixel, at tips."""
    drawn = coverage(torch.tensor([[shape, 0, size, 0]]), offset=offset, stretch=stretch)[0]
    points = (torch.arange(32 * 16).double() + 0.5) / 16
    middle, side = 8 + offset * (3, 1)[size], math.sqrt((30, 78)[size]) * (1 + 0.05 * stretch)
    y, x = torch.meshgrid(points - middle, points - middle, indexing="ij")
    raster = inside(shape, x, y, side).double().unflatten(0, (32, 16)).unflatten(2, (32, 16)).mean((1, 3))
    assert (drawn - raster).abs().max() < 0.34
    assert (drawn - raster).abs().sum() < 0.09 * side**2
    assert drawn.sum() == pytest.approx(side**2, rel=0.06)


def test_every_object_stays_in_its_quarter():
    for offset in (-1.0, 1.0):
        shown = coverage(EVERY, offset=offset, stretch=1.0) > 0.3
        rows, columns = shown.any(2), shown.any(1)
        lower, right = EVERY[:, 3] // 2, EVERY[:, 3] % 2
        for is_far, line in ((lower, rows), (right, columns)):
            quarter = line.unflatten(1, (2, 16)).any(2)
            assert torch.equal(quarter[:, 1].long(), is_far)
            assert torch.equal(quarter[:, 0].long(), 1 - is_far)


@SHAPES
def test_symmetries(shape):
    drawn = coverage(torch.tensor([[shape, 0, size, 0] for size in (0, 1)]))[:, :16, :16]
    assert torch.equal(drawn, drawn.flip(2))
    is_triangle = SCENE.shapes[shape] == "triangle"
    for turned in (drawn.flip(1), drawn.mT):
        assert torch.equal(drawn, turned) != is_triangle


def test_the_map_is_where_an_object_covers_half_of_a_pixel():
    _, segmentation = draw(one(EVERY), looks(len(EVERY), offset=0.3))
    shown = coverage(EVERY, offset=0.3)
    certain = (shown - 0.5).abs() > 0.02  # bytes round
    expected = torch.where(shown > 0.5, 1 + EVERY[:, 0, None, None], 0)
    assert torch.equal(segmentation.long()[certain], expected[certain])


def test_two_objects_are_both_drawn():
    things = torch.tensor([[[0, 0, 1, 0], [3, 2, 0, 3]]])
    image, segmentation = draw(things, looks(1))
    assert image[0, :, 8, 8].tolist() == list(SCENE.palette[0])
    assert image[0, :, 24, 24].tolist() == list(SCENE.palette[2])
    assert segmentation.unique().tolist() == [0, 1, 4]


def test_background_is_a_grey_of_its_range():
    for shade, grey in ((0.0, 25), (1.0, 100)):
        image, _ = draw(one(EVERY[:1]), Looks(torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.tensor([shade])))
        assert image[0, :, 31, 31].tolist() == [grey] * 3


def test_captions():
    scenes = torch.tensor([[[0, 0, 1, 0], [1, 2, 0, 3]], [[4, 5, 0, 1], [-1, -1, -1, -1]]])
    assert describe(scenes) == [
        "a large red circle at the top left and a small blue square at the bottom right",
        "a small cyan cross at the top right",
    ]
