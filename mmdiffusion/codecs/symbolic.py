"""Symbolic music for a method: tokens as they are, heard as audio."""

from jaxtyping import Float, Int
from pretty_midi import PrettyMIDI
from torch import Tensor

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.music import SymbolicCodec
from mmdiffusion.types import DataSpec, TokenSpec


class SymbolicMusic(TokenCodec):
    """The tokens of `Dance`: nothing to encode, and decoded by rendering the notes they stand for.

    Args:
        spec: The data, which has `music_tokens`.
        tokens_per_second: Slots of the time grid in a second.
        sample_rate: Samples a second of rendered audio.
    """

    def __init__(self, spec: DataSpec, tokens_per_second: int = 20, sample_rate: int = 22050) -> None:
        tokens = spec.get("music_tokens")
        if not isinstance(tokens, TokenSpec) or len(tokens.grid) != 1:
            raise ValueError(f"spec has {', '.join(spec)}: SymbolicMusic expects data with music_tokens, such as Dance")
        codec = SymbolicCodec(tokens.grid[0] / tokens_per_second, tokens_per_second, sample_rate)
        if codec.latent != tokens:
            raise ValueError(f"music_tokens is {tokens}: expected {codec.latent}; change tokens_per_second")
        super().__init__(tokens, "music_tokens", "music")
        self.codec, self.sample_rate = codec, sample_rate

    def encode(self, data: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """The tokens themselves, checked."""
        self.check(data)
        return data

    def decode(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b samples"]:
        """Audio in [-1, 1]; see `TokenCodec`."""
        self.check(tokens)
        return self.codec.render(tokens.cpu()).to(tokens.device)

    def notes(self, tokens: Int[Tensor, "b n"]) -> list[PrettyMIDI]:
        """The notes of each clip, for MIDI files."""
        return self.codec.decode(tokens.cpu())
