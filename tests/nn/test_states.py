"""What the denoiser is told: values, and three states that differ."""

import pytest
import torch

from mmdiffusion.nn.states import WIDTH, Teller, together
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, SegmentationSpec

SPECS = {
    "label": (LabelSpec(10), torch.tensor([3, 3, 3])),
    "vector": (FeatureSpec((5,)), torch.ones(3, 5)),
    "image": (
        ImageSpec(2, 8),
        torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1),
    ),
    "map": (SegmentationSpec(("a", "b", "c"), 4), torch.full((3, 4, 4), 2)),
}
SHOWN, ABSENT = torch.tensor([True, False, False]), torch.tensor([False, False, True])


def teller_of(spec, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Teller(spec, 8, **settings)


@pytest.mark.parametrize("name", SPECS)
def test_three_states_differ_and_show_no_more_than_they_should(name):
    spec, value = SPECS[name]
    teller = teller_of(spec)
    told = teller(value, SHOWN, ABSENT)
    assert told.vector.shape == (3, WIDTH)
    assert len(told.vector.unique(dim=0)) == 3
    for row, is_absent in ((1, False), (2, True)):
        unknown = teller.unknown(1, is_absent=is_absent)
        assert torch.equal(told.vector[row], unknown.vector[0])
        assert torch.equal(told.planes[row], unknown.planes[0])
        assert not told.planes[row].any()
    other = teller(1 - value if value.is_floating_point() else value - 1, SHOWN, ABSENT)
    assert torch.equal(other.vector[1:], told.vector[1:])
    assert torch.equal(other.planes[1:], told.planes[1:])
    is_vector = not teller.is_picture
    assert torch.equal(other.vector[0], told.vector[0]) != is_vector
    assert torch.equal(other.planes[0], told.planes[0]) == is_vector


def test_pictures_stand_beside_the_image_as_they_are():
    spec, value = SPECS["image"]
    assert torch.equal(teller_of(spec)(value, SHOWN, ABSENT).planes[0], value[0])
    spec, value = SPECS["map"]
    planes = teller_of(spec)(value, SHOWN, ABSENT).planes
    assert planes.shape == (3, 3, 8, 8)
    assert planes[0].mean((1, 2)).tolist() == [0, 0, 1]


def test_labels_may_be_told_in_context():
    spec, value = SPECS["label"]
    told = teller_of(spec, in_context=True)(value, SHOWN, ABSENT)
    assert torch.equal(told.tokens[:, 0], told.vector)
    assert teller_of(spec)(value, SHOWN, ABSENT).tokens.shape == (3, 0, WIDTH)


def test_together_they_are_a_sum_and_a_row():
    told = [teller_of(spec)(value, SHOWN, ABSENT) for spec, value in SPECS.values()]
    condition, planes = together(told)
    torch.testing.assert_close(condition.vector, sum(one.vector for one in told))
    assert condition.tokens is None
    assert planes is not None
    assert planes.shape == (3, 2 + 3, 8, 8)
    assert together([]) == ((None, None, None), None)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        (ImageSpec(1, 3), {}, "expected a side that divides the image's, 8"),
        (ImageSpec(1, 8), {"in_context": True}, "in_context has ImageSpec.*: expected a label"),
    ],
)
def test_what_does_not_fit_is_named(spec, settings, message):
    with pytest.raises(ValueError, match=message):
        Teller(spec, 8, **settings)
