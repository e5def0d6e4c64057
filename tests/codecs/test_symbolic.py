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


def test_a_token_outside_the_codebook_is_named(data):
    with pytest.raises(ValueError, match="tokens has 216: expected 0 to 215"):
        SymbolicMusic(data.spec).decode(torch.full((1, 40), 216))
