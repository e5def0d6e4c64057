"""Samples as they are looked at."""

import torch

from mmdiffusion.callbacks.shown import colours, shown
from tests.helpers import generator

IMAGE = torch.rand(3, 3, 4, 4, generator=generator()) * 2 - 1


def test_an_image_alone_stays():
    batch = {"image": IMAGE, "index": torch.arange(3)}
    assert torch.equal(shown(batch)["image"], IMAGE)


def test_what_belongs_together_is_side_by_side():
    is_seen = torch.ones(3, 1, 4, 4)
    is_seen[..., :2] = 0
    classes = torch.arange(3)[:, None, None].expand(3, 4, 4)
    batch = {"image": IMAGE, "masked": torch.cat([IMAGE * is_seen, is_seen], 1), "segmentation": classes}
    row = shown(batch | {"reconstruction": -IMAGE})["image"]
    assert row.shape == (3, 3, 4, 16)
    parts = row.split(4, -1)
    for part, expected in zip(parts, (IMAGE * is_seen, IMAGE, colours(classes), -IMAGE), strict=True):
        assert torch.equal(part, expected)


def test_colours_of_classes_differ_are_in_range_and_do_not_depend_on_the_batch():
    table = colours(torch.arange(20)[None, None])[0, :, 0].T
    assert torch.equal(table[0], torch.full((3,), -1.0))
    assert (table.abs() <= 1).all()
    distances = torch.cdist(table, table) + 9 * torch.eye(20)
    assert distances.min() > 0.1
    assert torch.equal(colours(torch.tensor([[[4]]]))[0, :, 0, 0], table[4])


def test_a_sound_is_followed_by_its_reconstruction():
    music = torch.rand(2, 5, generator=generator())
    assert torch.equal(shown({"music": music, "reconstruction": -music})["music"], torch.cat([music, -music], 1))
