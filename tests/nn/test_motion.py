"""A dance as the denoiser reads it: where things are in time, what is trained, what is dropped."""

import pytest
import torch

from mmdiffusion.nn import MotionConditioner
from mmdiffusion.nn.motion import features
from mmdiffusion.types import LabelSpec, MotionSpec

MOTION = MotionSpec(num_frames=60, num_joints=17, fps=60)
SPEC = {"motion": MOTION, "label": LabelSpec(10)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(spec=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MotionConditioner(spec or SPEC, **{"width": 16, "vector_width": 8, "depth": 1} | settings)


def batch(size=3):
    return {"motion": torch.randn(size, 60, 51, generator=generator()), "label": torch.arange(size)}


def test_one_token_a_twentieth_of_a_second_and_one_vector():
    condition = build()(batch())
    assert condition.tokens.shape == (3, 20, 16)
    assert condition.vector.shape == (3, 8)
    assert build(tokens_per_second=10)(batch()).tokens.shape == (3, 10, 16)


def test_a_change_in_the_motion_moves_the_tokens_near_it_and_the_vector():
    conditioner, known = build(), batch()
    moved = {**known, "motion": known["motion"].clone()}
    moved["motion"][:, 30] += 1.0
    before, after = conditioner(known), conditioner(moved)
    changed = (after.tokens - before.tokens).abs().amax((0, 2)) > 1e-6
    reached = changed.nonzero().flatten().tolist()
    assert reached == list(range(7, 14)), "frame 30 is in tokens 9 to 11, and two more on each side see these"
    assert not torch.equal(before.vector, after.vector)


def test_where_the_dancer_stands_does_not_matter():
    known = batch()
    shifted = {**known, "motion": known["motion"] + torch.tensor([3.0, 0.0, -2.0]).repeat(17)}
    first, second = build()(known), build()(shifted)
    torch.testing.assert_close(first.tokens, second.tokens, atol=1e-4, rtol=1e-4)


def test_the_genre_changes_the_vector_alone():
    known = batch()
    other = {**known, "label": known["label"] + 1}
    first, second = build()(known), build()(other)
    assert torch.equal(first.tokens, second.tokens)
    assert (first.vector != second.vector).any(1).all()
    assert build({"motion": MOTION}).reads == ("motion",)
    assert build().reads == ("motion", "label")


def test_a_dropped_dance_looks_like_none():
    conditioner, known = build(), batch()
    dropped = conditioner(known, torch.tensor([False, True, False]))
    shown, null = conditioner(known), conditioner.null(1)
    for part in ("tokens", "vector"):
        assert torch.equal(getattr(dropped, part)[1], getattr(null, part)[0])
        assert torch.equal(getattr(dropped, part)[[0, 2]], getattr(shown, part)[[0, 2]])


def test_gradients_reach_encoder_genre_fusion_and_null():
    conditioner = build()
    condition = conditioner(batch(), torch.tensor([False, True, False]))
    (condition.tokens.square().sum() + condition.vector.square().sum()).backward()
    dead = [name for name, p in conditioner.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": {"label": LabelSpec(10)}}, "spec has label: expected data with a motion"),
        ({"tokens_per_second": 7}, "tokens_per_second is 7: expected a divisor of 60"),
        ({"kernel": 4}, "kernel is 4: expected an odd number"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (torch.zeros(1, 50, 51), r"motion has shape \(50, 51\): expected \(60, 51\)"),
        (torch.full((1, 60, 51), float("nan")), "motion has numbers that are not finite"),
    ],
)
def test_a_broken_motion_is_named(motion, message):
    with pytest.raises(ValueError, match=message):
        features(motion, MOTION)
