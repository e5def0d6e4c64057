"""Pictures from files: exact values, and a name for everything that is not as expected."""

import pytest
import torch
from PIL import Image

from mmdiffusion.data import read_images
from mmdiffusion.types import ImageSpec

RGB, GREY = ImageSpec(3, 4), ImageSpec(1, 4)


def save(path, mode="RGB", size=(4, 4), colour: int | tuple[int, ...] = (255, 0, 51)):
    Image.new(mode, size, colour).save(path)
    return path


def test_values_are_those_of_the_file(tmp_path):
    path = save(tmp_path / "a.png")
    made = read_images([path, str(path)], RGB)
    assert made.shape == (2, 3, 4, 4)
    torch.testing.assert_close(made[1, :, 2, 3], torch.tensor([1.0, -1.0, -0.6]))


def test_grey_pictures_are_read_as_grey_or_as_colour(tmp_path):
    path = save(tmp_path / "grey.png", "L", colour=102)
    torch.testing.assert_close(read_images([path], GREY), torch.full((1, 1, 4, 4), -0.2))
    torch.testing.assert_close(read_images([path], RGB), torch.full((1, 3, 4, 4), -0.2))


def test_opaque_pictures_with_an_alpha_channel_are_read(tmp_path):
    path = save(tmp_path / "opaque.png", "RGBA", colour=(255, 0, 51, 255))
    torch.testing.assert_close(read_images([path], RGB), read_images([save(tmp_path / "a.png")], RGB))


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        ({"size": (4, 5)}, RGB, r"has 4 x 5 pixels: expected 4 x 4; .*Image.resize\(\(4, 4\)\)"),
        ({}, GREY, r"has mode RGB: expected an opaque picture of mode L; .*convert\('L'\)"),
        ({"mode": "RGBA", "colour": (1, 2, 3, 128)}, RGB, "has mode RGBA: expected an opaque picture"),
        ({"mode": "LA", "colour": (9, 9)}, GREY, "has mode LA"),
    ],
)
def test_another_size_or_mode_is_named(tmp_path, settings, spec, message):
    path = save(tmp_path / "b.png", **settings)
    with pytest.raises(ValueError, match=message):
        read_images([path], spec)


def test_files_that_are_no_pictures_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.png is missing"):
        read_images([tmp_path / "none.png"], RGB)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png is no picture"):
        read_images([tmp_path / "text.png"], RGB)
    whole = save(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:45])
    with pytest.raises(ValueError, match=r"cut.png is no picture"):
        read_images([tmp_path / "cut.png"], RGB)
