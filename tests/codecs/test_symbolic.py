"""Tokens of a dance's music as a method's codec."""

import pytest
import torch

from mmdiffusion.codecs import SymbolicCodec, SymbolicMusic
from mmdiffusion.data import Dance
from mmdiffusion.types import TokenSpec


@pytest.fixture(scope="module")
def data():
    return Dance(num_train=10, seconds=2.0)


def test_tokens_are_themselves_and_sound_like_the_codec(data):
    codec, tokens = SymbolicMusic(data.spec), data.columns("train")["music_tokens"]
    assert (codec.source, codec.result, codec.latent) == ("music_tokens", "music", data.spec["music_tokens"])
    assert torch.equal(codec.encode(tokens), tokens)
    assert torch.equal(codec.decode(tokens), SymbolicCodec(2.0).render(tokens))
    assert torch.equal(SymbolicCodec(2.0).encode(codec.notes(tokens)), tokens)
    assert not list(codec.parameters())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "SymbolicMusic expects data with music_tokens"),
        ({"music_tokens": TokenSpec(216, (4, 10))}, "expects data with music_tokens"),
        ({"music_tokens": TokenSpec(300, (40,))}, "music_tokens is .*300.*: expected .*216"),
    ],
)
def test_other_data_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        SymbolicMusic(spec)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tokens_per_second": 7},
            "tokens_per_second is 7: 40 tokens would last 5.71429 s, and .* lasts 2 s; expected 20",
        ),
        ({"tokens_per_second": 0}, "tokens_per_second is 0: expected at least 1"),
    ],
)
@pytest.mark.parametrize("audio", [False, True])
def test_another_time_grid_than_the_data_s_is_named(settings, message, audio):
    with pytest.raises(ValueError, match=message):
        SymbolicMusic(Dance(num_train=5, seconds=2.0, audio=audio).spec, **settings)


def test_another_sample_rate_than_the_data_s_is_named():
    with pytest.raises(ValueError, match="sample_rate is 16000: expected 22050, that of the data's music"):
        SymbolicMusic(Dance(num_train=5, seconds=2.0, audio=True).spec, sample_rate=16000)


def test_a_token_outside_the_codebook_is_named(data):
    with pytest.raises(ValueError, match="tokens has 216, outside the codebook: expected 0 to 215; check"):
        SymbolicMusic(data.spec).decode(torch.full((1, 40), 216))
