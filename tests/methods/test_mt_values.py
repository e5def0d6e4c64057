"""Values that MT-Diffusion is given: what does not fit the data is named, what fits is taken in any type."""

import pytest
import torch

from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import OwnChannels, OwnHead
from mmdiffusion.types import ImageSpec
from tests.helpers import build_method
from tests.methods.build_extras import DRIFT, FOUR, SPEC, batch_of, build

MASKED = torch.cat([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)], dim=1)
PICTURE = torch.zeros(1, 1, 8, 8)


def spoilt(values, place, value):
    values = values.clone()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("names", "known", "message"),
    [
        (
            FOUR,
            {"image": spoilt(PICTURE, (0, 0, 3, 3), torch.nan)},
            "image holds NaN or infinity in sample 0: expected",
        ),
        (FOUR, {"image": PICTURE + 255}, r"image runs from 255 to 255: expected -1 to 1; scale it.* x / 127.5 - 1"),
        (FOUR, {"image": PICTURE - 1.01}, r"image runs from -1.01 to -1.01: expected -1 to 1"),
        (FOUR, {"image": PICTURE.byte()}, "image is torch.uint8: expected floating-point numbers"),
        (FOUR, {"image": PICTURE[:, :, 1:]}, r"image is \(1, 7, 8\): expected \(1, 8, 8\) for each sample; resize it"),
        (FOUR, {"masked": spoilt(MASKED, (0, 1, 0, 0), 0.37)}, "masked has 0.37 in its last channel: expected 1 where"),
        (FOUR, {"masked": spoilt(MASKED, (0, 0, 0, 0), 2.0)}, "masked runs from 0 to 2: expected -1 to 1"),
        (FOUR, {"masked": spoilt(MASKED, (0, 1, 0, 0), torch.nan)}, "masked holds NaN"),
        (FOUR, {"masked": PICTURE}, r"masked is \(1, 8, 8\): expected \(2, 8, 8\) .*last channel .* 1 where it can"),
        (FOUR, {"feature": torch.zeros(1, 5)}, r"feature is \(5,\): expected \(6,\) for each sample"),
        (FOUR, {"feature": torch.full((1, 6), torch.inf)}, "feature holds NaN or infinity"),
        (
            FOUR,
            {"label": torch.tensor([3.0])},
            r"label is torch.float32: expected integers, 0 to 9; take label.long\(\)",
        ),
        (FOUR, {"label": torch.tensor([True])}, "label is torch.bool: expected integers, 0 to 9"),
        (FOUR, {"label": torch.tensor([10])}, "label is 10: expected 0 to 9, the classes of the training data"),
        (FOUR, {"label": torch.tensor([[3]])}, r"label is \(1,\): expected \(\) for each sample"),
        (FOUR, {"label": torch.tensor(3)}, "label is a single number: expected one entry for each seed"),
        (FOUR, {"label": ["3"]}, "label is of type list: expected a tensor"),
        (
            ("segmentation",),
            {"segmentation": torch.zeros(1, 4, 4).long()},
            r"segmentation is \(4, 4\): expected \(8, 8",
        ),
        (("segmentation",), {"segmentation": torch.full((1, 8, 8), 3)}, "segmentation is 3: expected 0 to 2"),
    ],
)
def test_a_value_that_does_not_fit_is_named(names, known, message):
    with pytest.raises(ValueError, match=message):
        build(*names).sample(known, seeds=[0])


def test_the_broken_sample_is_named():
    feature = spoilt(torch.zeros(3, 6), (2, 1), torch.nan)
    with pytest.raises(ValueError, match="in sample 2"):
        build("feature").sample({"feature": feature}, seeds=range(3))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("label", torch.uint8), ("label", torch.int32), ("feature", torch.float64), ("image", torch.half)],
)
def test_any_type_of_numbers_gives_the_same_samples(name, kind):
    method, values = build("label", "feature"), batch_of(3)[name].to(kind)
    drawn = ["feature"] if name == "image" else ["image"]
    wide = values.float() if values.is_floating_point() else values.long()
    made, expected = (method.sample({name: one}, seeds=range(3), drawn=drawn)[drawn[0]] for one in (values, wide))
    assert torch.equal(made, expected)


def test_rounding_at_the_ends_of_the_range_is_taken():
    made = build("label").sample({"image": PICTURE + 1.0005}, seeds=[0])
    assert set(made) == {"image", "label", "index"}


@pytest.mark.parametrize("name", ["masked", "picture"])
def test_what_was_drawn_can_be_given(name):
    spec = SPEC | {"picture": ImageSpec(1, 8)}
    method = build_method(spec=spec, extras={name: Extra(OwnChannels, OwnHead, DRIFT)})
    with torch.no_grad():
        method.network.denoiser.out.weight.mul_(100)  # what the head says is far outside
    drawn = method.sample({}, seeds=range(4))
    assert drawn[name].abs().max() == 1
    again = method.sample({name: drawn[name]}, seeds=range(4), drawn=["image"])
    assert torch.equal(again[name], drawn[name])
