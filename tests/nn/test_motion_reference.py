"""The paper's dance encoder: one token, trained end to end, and what one token can never say."""

import pytest
import torch

from mmdiffusion.nn import Denoiser, Level, ReferenceMotionConditioner
from mmdiffusion.nn.attention import CrossAttention
from mmdiffusion.nn.motion_reference import ResidualBlock, convolution
from mmdiffusion.types import LabelSpec, MotionSpec
from tests.helpers import generator

MOTION = MotionSpec(num_frames=60, num_joints=17, fps=60)
SPEC = {"motion": MOTION, "label": LabelSpec(10)}


def build(spec=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"width": 16, "num_features": 48, "channels": (8, 12), "genre_width": 4}
        return ReferenceMotionConditioner(spec or SPEC, **small | settings)


def token(conditioner, known, is_dropped=None):
    tokens = conditioner(known, is_dropped).tokens
    assert tokens is not None
    return tokens


def batch(size=3):
    return {"motion": torch.randn(size, 60, 51, generator=generator()), "label": torch.arange(size)}


def test_a_dance_is_one_token_and_no_vector():
    conditioner = build()
    assert (conditioner.reads, conditioner.width, conditioner.context_width) == (("motion", "label"), None, 16)
    for condition in (conditioner(batch()), conditioner.null(3)):
        assert condition.tokens is not None
        assert condition.tokens.shape == (3, 1, 16)
        assert condition.vector is None
    assert build({"motion": MOTION}).reads == ("motion",)
    assert token(build({"motion": MOTION}), batch()).shape == (3, 1, 16)


def test_lengths_at_the_sizes_of_the_public_code():
    """800 numbers a frame become 795, 792, 789, 786, and then the token."""
    with torch.device("meta"):
        conditioner = ReferenceMotionConditioner(SPEC, 1024, 800, (512, 512, 1024), 256)
        x, lengths = torch.empty(1, 60, 800), []
        for part in conditioner.stages:
            x = part(x)
            lengths.append(x.shape[2])
    assert list(dict.fromkeys(lengths)) == [795, 792, 789, 786]
    assert conditioner.leave.in_features == 786
    assert conditioner.fusion.in_features == 1024 + 256


def test_gradients_reach_every_parameter():
    conditioner = build()
    token(conditioner, batch(), torch.tensor([False, True, False])).square().sum().backward()
    parameters = dict(conditioner.named_parameters())
    assert any(name.startswith("stages.") for name in parameters)
    dead = [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert not dead


def test_motion_and_genre_change_the_token():
    conditioner, known = build(), batch()
    before = token(conditioner, known)
    for name, other in (("motion", known["motion"].flip(1)), ("label", known["label"] + 1)):
        assert (token(conditioner, {**known, name: other}) != before).any(2).all()


def test_a_dropped_dance_looks_like_none():
    conditioner, known = build(), batch()
    dropped = token(conditioner, known, torch.tensor([False, True, False]))
    null = conditioner.null(1).tokens
    assert null is not None
    assert torch.equal(dropped[1], null[0])
    assert torch.equal(dropped[[0, 2]], token(conditioner, known)[[0, 2]])


def test_one_context_token_answers_every_query_alike():
    """So cross-attention adds one vector to all notes, whatever they are; two tokens answer differently."""
    context = token(build(), batch(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser((40,), 8, 20, None, 16, None, [Level(32, 1, 4)])
    cross = denoiser.middle[0].cross
    assert isinstance(cross, CrossAttention)
    torch.nn.init.normal_(cross.out.weight, generator=generator())
    queries = torch.randn(1, 40, 32, generator=generator(1))
    answers = cross(queries, context)[0]
    assert answers.abs().max() > 0.1
    torch.testing.assert_close(answers, answers[:1].expand(40, -1))
    two = cross(queries, torch.cat([context, context + 3 * torch.randn(1, 1, 16, generator=generator(2))], dim=1))[0]
    assert (two - two[:1]).abs().max() > 0.01


def test_a_block_keeps_the_length_and_sees_as_far_as_its_dilation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = ResidualBlock(4, 9)
    x = torch.randn(1, 4, 40, generator=generator())
    changed = x.clone()
    changed[..., 20] += 1
    reached = (block(changed) - block(x)).abs().amax((0, 1)) > 1e-6
    assert reached.nonzero().flatten().tolist() == [11, 20, 29]


def test_weights_are_normalised_and_keep_the_variance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = convolution(64, 256, 3)
    dict(layer.named_parameters())["parametrizations.weight.original1"].data.mul_(7)
    y = layer(torch.randn(4, 64, 50, generator=generator()))
    assert y.detach().std().item() == pytest.approx(1, abs=0.1), "the direction of a weight has no length"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": {"label": LabelSpec(10)}}, "spec has label: expected data with a motion"),
        ({"num_features": 35}, "num_features is 35: expected at least 36, which 2 stages"),
        ({"channels": ()}, r"channels is \[\]: expected at least one stage"),
        ({"channels": (8, 0)}, r"channels is \[8, 0\]: expected at least one stage"),
        ({"width": 0}, "width is 0, genre_width is 4: expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_the_smallest_number_of_features_works():
    assert token(build(num_features=36), batch()).isfinite().all()


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (torch.zeros(1, 50, 51), r"motion has shape \(50, 51\): expected \(60, 51\)"),
        (torch.full((1, 60, 51), float("nan")), "motion has numbers that are not finite in 1 of 1 clips"),
    ],
)
def test_a_broken_motion_is_named(motion, message):
    with pytest.raises(ValueError, match=message):
        build()({"motion": motion, "label": torch.tensor([0])})
