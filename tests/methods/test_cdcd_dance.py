"""CDCD from a dance to music: a sequence of motion reaches the tokens, and nothing of the target does."""

from functools import partial

import pytest
import torch

from mmdiffusion.callbacks.draws import Draw, check_draws
from mmdiffusion.codecs import SymbolicMusic
from mmdiffusion.data import Dance
from mmdiffusion.diffusion import Ancestral, ReleasedSchedule
from mmdiffusion.methods import CDCD, Contrast, IntraNegatives
from mmdiffusion.nn import Denoiser, Level, MotionConditioner, ReferenceMotionConditioner
from tests.helpers import generator


@pytest.fixture(scope="module")
def data():
    return Dance(num_train=10, seconds=2.0)


SEQUENCE = partial(MotionConditioner, width=16, vector_width=8, depth=1)
ONE_TOKEN = partial(ReferenceMotionConditioner, width=16, num_features=40, channels=(8, 8), genre_width=4)


def build(data, conditioner=SEQUENCE, is_aligned=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = CDCD(
            data.spec,
            SymbolicMusic,
            conditioner,
            partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32),
            ReleasedSchedule(10),
            Ancestral(),
            contrasts=[Contrast(IntraNegatives(2))],
            steps=5,
            is_aligned=is_aligned,
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
    with pytest.raises(ValueError, match=r"draws.x: given lacks label"):
        check_draws({"x": Draw(["motion"])}, build(data))


@pytest.mark.parametrize(
    ("conditioner", "count"),
    [(partial(SEQUENCE, tokens_per_second=10), 20), (ONE_TOKEN, 1)],
    ids=["slower", "one token"],
)
def test_another_time_grid_is_named_before_any_work(data, conditioner, count):
    with pytest.raises(ValueError, match=f"is_aligned is True with {count} context tokens and 40 drawn ones"):
        build(data, conditioner)


def test_the_single_token_encoder_trains_and_draws(data):
    method, batch = build(data, ONE_TOKEN, is_aligned=False), data.rows("train", range(8))
    optimizer, losses = torch.optim.Adam(method.parameters(), 3e-3), []
    before = {name: p.detach().clone() for name, p in method.conditioner.named_parameters()}
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(method.losses(batch, generator())["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], "the same noise at every step"
    assert not [name for name, p in method.conditioner.named_parameters() if torch.equal(p, before[name])]
    assert method.eval().predict_step(data.rows("test", range(2)), 0)["music_tokens"].shape == (2, 40)
