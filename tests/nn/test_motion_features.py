"""Motions that are no positions: both conditioners read them, whatever their units, and one the video's feature."""

import pytest
import torch

from mmdiffusion.nn import MotionConditioner, ReferenceMotionConditioner
from mmdiffusion.nn.motion import features, frame_width, movement
from mmdiffusion.types import FeatureSpec, LabelSpec, MotionFeatureSpec, MotionSpec
from tests.helpers import generator

FEATURES = MotionFeatureSpec(num_frames=60, num_features=75, fps=30)
SPEC = {"motion_features": FEATURES}


def sequence(spec):
    return MotionConditioner(spec, width=16, vector_width=8, depth=1, tokens_per_second=10)


def one_token(spec):
    return ReferenceMotionConditioner(spec, width=16, num_features=48, channels=(8, 12), genre_width=4)


def dances(size=3):
    return torch.randn(size, 60, 75, generator=generator())


@pytest.mark.parametrize(("build", "count"), [(sequence, 20), (one_token, 1)])
def test_both_conditioners_read_them_in_any_unit(build, count):
    conditioner = build(SPEC)
    assert conditioner.reads == ("motion_features",)
    metres = conditioner({"motion_features": dances()}).tokens
    assert metres.shape == (3, count, 16)
    pixels = conditioner({"motion_features": 500 + 300 * dances()}).tokens
    torch.testing.assert_close(pixels, metres, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(conditioner({"motion_features": dances().flip(0)}).tokens, metres)


def test_features_stand_before_positions_where_the_data_has_both():
    positions = MotionSpec(num_frames=60, num_joints=17, fps=60)
    assert movement({"motion": positions, "motion_features": FEATURES}) == ("motion_features", FEATURES)
    assert movement({"motion": positions}) == ("motion", positions)
    assert (frame_width(positions), frame_width(FEATURES)) == (102, 75)


def test_the_feature_of_a_video_changes_the_token():
    spec = SPEC | {"video": FeatureSpec((32,)), "label": LabelSpec(10)}
    conditioner = one_token(spec)
    assert conditioner.reads == ("motion_features", "label", "video")
    known = {"motion_features": dances(), "label": torch.arange(3), "video": torch.zeros(3, 32)}
    before, after = (conditioner(known | {"video": torch.full((3, 32), value)}).tokens for value in (0.0, 1.0))
    assert (before != after).flatten(1).any(1).all()
    assert conditioner.fusion.in_features == 16 + 4 + 32


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (torch.zeros(1, 60, 74), r"motion has shape \(60, 74\): expected \(60, 75\)"),
        (torch.full((1, 60, 75), float("inf")), "motion has numbers that are not finite in 1 of 1 clips"),
    ],
)
def test_broken_features_are_named(motion, message):
    with pytest.raises(ValueError, match=message):
        features(motion, FEATURES)
