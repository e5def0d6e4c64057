"""Crops and resizes against Pillow's, and what is random in them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiffusion.data.crops import Crop
from mmdiffusion.data.pixels import as_pixels
from tests.data.pictures import scene
from tests.helpers import generator


@pytest.mark.parametrize(("width", "height"), [(500, 375), (334, 500), (40, 61), (64, 64)])
def test_centre_crop_is_pillows(width, height):
    picture = scene(width, height)
    scale = 64 / min(width, height)
    resized = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
    expected = torch.from_numpy(np.array(resized.crop((left, top, left + 64, top + 64)))).permute(2, 0, 1)
    found = Crop(64)(as_pixels(picture), generator())
    assert (found.int() - expected.int()).abs().max() <= 2


def coordinates(height, width):
    """A picture that says of each pixel where it is, in eighths of the width, and down."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns * 255 / width, rows * 255 / height, columns * 0.0]).byte()


def test_random_crops_come_from_the_generator_and_the_middle():
    picture, crop = coordinates(400, 800), Crop(32, random=True)
    made = [crop(picture, generator(seed)) for seed in range(200)]
    assert torch.equal(made[3], crop(picture, generator(3)))
    assert len({image[0, 0, 0].item() for image in made}) > 10
    lefts = torch.stack([image[0, 0, 0] for image in made]).float() / 255 * 800
    assert 145 <= lefts.min() < 170  # the square begins between 3/8 and 5/8 of the 400 left over
    assert 230 < lefts.max() <= 300  # and is cut by up to a ninth
    widths = torch.stack([image[0, 0, -1].float() - image[0, 0, 0].float() for image in made]) / 255 * 800
    assert 330 < widths.min() < 355
    assert 380 < widths.max() < 400


def test_random_crop_of_the_exact_size_is_the_picture():
    picture = coordinates(32, 32)
    assert torch.equal(Crop(32, random=True)(picture, generator()), picture)


@pytest.mark.parametrize("random", [False, True])
def test_half_are_mirrored_where_asked_and_none_else(random):
    picture = coordinates(32, 32)
    for flip in (False, True):
        made = [Crop(32, random, flip)(picture, generator(seed)) for seed in range(100)]
        mirrored = sum(torch.equal(image, picture.flip(2)) for image in made)
        assert sum(torch.equal(image, picture) for image in made) == 100 - mirrored
        assert (35 < mirrored < 65) if flip else mirrored == 0


@pytest.mark.parametrize("random", [False, True])
def test_squashed_picture_keeps_both_ends(random):
    shown = Crop(32, random, squash=True)(coordinates(100, 300), generator())[0, 0]
    assert shown[0] < 40
    assert shown[-1] > 215


@pytest.mark.parametrize("crop", [Crop(20), Crop(20, random=True, flip=True), Crop(20, squash=True)])
def test_classes_follow_the_picture_and_are_never_mixed(crop):
    classes = (torch.arange(90)[None] // 30 * 100).expand(60, 90).byte()
    for seed in range(10):
        window = crop.window(60, 90, generator(seed))
        shown = window.classes(classes)
        assert set(shown.unique().tolist()) <= {0, 100, 200}
        smooth = window(classes[None])[0].int()
        assert ((smooth - shown.int()).abs() < 60).all()


def test_empty_size_is_refused():
    with pytest.raises(ValueError, match="size is 0: expected at least 1 pixel"):
        Crop(0)
