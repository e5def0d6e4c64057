"""CDCD from a dance to music: a sequence of motion reaches the tokens, and nothing of the target does."""

from functools import partial

import pytest
import torch

from mmdiffusion.codecs import SymbolicMusic
from mmdiffusion.data import Dance
from mmdiffusion.diffusion import Ancestral, ReleasedSchedule
from mmdiffusion.methods import CDCD, Contrast, IntraNegatives
from mmdiffusion.nn import Denoiser, Level, MotionConditioner
from tests.helpers import generator


@pytest.fixture(scope="module")
def data():
    return Dance(num_train=10, seconds=2.0)


def build(data, tokens_per_second=20):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = CDCD(
            data.spec,
            SymbolicMusic,
            partial(MotionConditioner, width=16, vector_width=8, depth=1, tokens_per_second=tokens_per_second),
            partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32),
            ReleasedSchedule(10),
            Ancestral(),
            contrasts=[Contrast(IntraNegatives(2))],
            steps=5,
            is_aligned=True,
        )
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return method


def test_gradients_reach_the_motion_encoder_the_genre_and_their_fusion(data):
    method = build(data)
    method.losses(data.rows("train", range(8)), generator())["loss"].backward()
    for part in (method.conditioner, method.conditioner.genre, method.conditioner.fusion, method.denoiser):
        dead = [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()]
        assert not dead


def test_two_truths_and_one_seed_give_the_same_tokens(data):
    """The public sampler starts from the true music, lightly noised (github.com/L-YeZhu/CDCD)."""
    method, batch = build(data).eval(), data.rows("test", range(4))
    other = batch | {"music_tokens": batch["music_tokens"].flip(0)}
    first, second = (method.predict_step(b, 0) for b in (batch, other))
    assert torch.equal(first["music_tokens"], second["music_tokens"])
    assert first["music"].shape == (4, 44100)
    moved = batch | {"motion": batch["motion"].flip(0)}
    assert not torch.equal(method.predict_step(moved, 0)["music_tokens"], first["music_tokens"])


def test_all_of_a_condition_is_needed(data):
    with pytest.raises(ValueError, match="given lacks label: expected all of motion, label, or nothing"):
        build(data).sample({"motion": data.rows("test", [0])["motion"]}, seeds=[0])


def test_another_time_grid_is_named(data):
    with pytest.raises(ValueError, match="is_aligned is True with 20 context tokens and 40 drawn ones"):
        build(data, tokens_per_second=10).losses(data.rows("train", range(2)), generator())
