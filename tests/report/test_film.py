"""Filming a sample changes neither the sample nor the method."""

import torch

from mmdiffusion.codecs import GreyLevels
from mmdiffusion.report.cells import cell, map_picture
from mmdiffusion.report.film import token_pictures, watched
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, TextSpec
from tests.helpers import SPEC, build_method


def drawn(method):
    image = method.sample({"label": torch.arange(3)}, seeds=range(3))["image"]
    assert isinstance(image, torch.Tensor)
    return image


def shown(name, value, spec):
    made = cell(name, value, spec)
    assert made is not None
    return made


def test_samples_are_the_same_and_every_step_is_seen():
    method = build_method()
    before = drawn(method)
    with watched(method) as states:
        during = drawn(method)
    assert torch.equal(before, during)
    assert torch.equal(before, drawn(method))
    assert [time for time, _ in states] == [50, 38, 25, 12]
    assert "step" not in vars(method.diffusion), "what was replaced is back"
    assert len(states) == 4


def test_the_last_state_is_one_step_from_the_sample():
    method = build_method()
    with watched(method) as states:
        image = drawn(method)
    assert (states[-1][1] - image).abs().mean() < (states[0][1] - image).abs().mean()


def test_an_error_while_filming_leaves_the_method_as_it_was():
    method = build_method()
    try:
        with watched(method):
            raise KeyError
    except KeyError:
        pass
    assert "step" not in vars(method.diffusion)


def test_masked_tokens_are_transparent_and_others_are_their_levels():
    codec = GreyLevels({"image": ImageSpec(1, 2, 17)})
    picture = token_pictures(codec, torch.tensor([[[17, 0], [8, 16]]]))
    assert picture.shape == (1, 4, 2, 2)
    assert picture[0, 3].tolist() == [[0, 1], [1, 1]]
    assert picture[0, 0].flatten()[1:].tolist() == [0, 0.5, 1]


def test_values_are_shown_as_what_they_are():
    assert shown("label", torch.tensor(1), LabelSpec(2, ("cat", "dog"))).text == "dog"
    assert shown("label", torch.tensor(1), LabelSpec(2)).text == "1"
    assert shown("caption", "a dog", TextSpec(3)).text == "a dog"
    assert shown("feature", torch.zeros(3, 4), FeatureSpec((3, 4))).text == "3 x 4 numbers"
    assert shown("masked", torch.zeros(2, 8, 8), MaskedSpec(1, 8)).picture.startswith("data:image/png")
    assert cell("image", torch.zeros(1, 8, 8), SPEC["image"]) is None


def test_classes_of_a_map_have_colours_of_their_own():
    colours = map_picture(torch.arange(7)[None], 7)[:, 0].T
    assert torch.cdist(colours, colours).add(torch.eye(7)).min() > 0.1
