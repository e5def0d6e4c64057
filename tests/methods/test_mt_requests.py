"""What MT-Diffusion refuses by names and settings alone: before a training, and settings that nothing acts on."""

import pytest
import torch

from mmdiffusion.callbacks.draws import Draw, check_draws
from tests.helpers import build_method
from tests.methods.build_extras import batch_of, build

IMAGE = {"image": torch.zeros(1, 1, 8, 8)}


@pytest.mark.parametrize(
    ("changes", "draw", "message"),
    [
        (
            {},
            Draw(["image", "label"]),
            "given is image, label: expected something left to draw; leave out image .*label",
        ),
        ({}, Draw([], ["label"]), "drawn is .'label'.: expected image among them"),
        ({"absent_share": 0.0}, Draw([], ["image"]), "absent_share of label is 0: expected above 0"),
        ({"absent_share": 0.8}, Draw([], ["image", "label"]), "drawn has label, whose absent_share and shown_share"),
        (
            {"absent_share": 0.0},
            Draw(["image"], ["label"]),
            "absent_share of label is 0: .*, for reading it off an image",
        ),
        ({"weight": 0.0}, Draw([], ["image", "label"]), "weight of label is 0: expected above 0"),
        ({"absent_share": 0.0, "guidance": 2.0}, Draw(["label"]), "absent_share of label is 0.* for guidance"),
        ({"weight": 0.0, "head_guidance": 1.0}, Draw(["label"]), "weight of label is 0.* for guidance by its head"),
    ],
)
def test_a_draw_that_cannot_be_served_is_named_without_drawing(changes, draw, message):
    with pytest.raises(ValueError, match=f"draws.x: {message}"):
        check_draws({"x": draw}, build_method(**changes))


def test_draws_that_can_be_served_pass_whatever_the_method_s_own_settings():
    """A setting of the method acts where it can: it is no request."""
    method = build_method(guidance=2.0, head_guidance=1.0, representation_guidance=3.0)
    check_draws(
        {"read": Draw(["image"]), "made": Draw(["label"]), "joint": Draw([]), "alone": Draw([], ["image"])}, method
    )
    assert set(method.sample(IMAGE, seeds=[0])) == {"image", "label", "index"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", 999), ("guidance", 7.0), ("head_guidance", 7.0), ("representation_guidance", 7.0), ("guidance", 1.0)],
)
@pytest.mark.parametrize("known", ["image", "image and label"])
def test_a_setting_of_sampling_is_refused_where_extras_are_read(setting, value, known):
    condition = {name: batch_of(1)[name] for name in known.split(" and ")}
    with pytest.raises(ValueError, match=f"{setting} is {value}: expected None, as the image is given.*; leave it out"):
        build("label", "feature").sample(condition, seeds=[0], drawn=["feature"], **{setting: value})


def test_a_learned_uncertainty_without_a_loss_is_refused():
    with pytest.raises(ValueError, match="uncertainty is True: expected False, as no extra has a loss"):
        build(uncertainty=True)
    with pytest.raises(ValueError, match="uncertainty is True"):
        build_method(weight=0.0, uncertainty=True)
    assert set(build("label", uncertainty=True).log_variance) == {"label"}


def test_pasting_without_a_masked_image_is_refused():
    for names in ((), ("label", "segmentation")):
        with pytest.raises(ValueError, match="paste_known is True: expected False, as no masked image can be given"):
            build(*names, paste_known=True)
    assert build("label", "masked", paste_known=True).paste_known
