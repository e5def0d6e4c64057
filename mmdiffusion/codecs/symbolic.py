"""Symbolic music for a method: tokens as they are, heard as audio."""

import math

from jaxtyping import Float, Int
from pretty_midi import PrettyMIDI
from torch import Tensor

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.music import SymbolicCodec
from mmdiffusion.types import DataSpec, MotionSpec, MusicSpec, TokenSpec


class SymbolicMusic(TokenCodec):
    """The tokens of `Dance`: nothing to encode, and decoded by rendering the notes they stand for.

    Args:
        spec: The data, which has `music_tokens`.
        tokens_per_second: Slots of the time grid in a second.
        sample_rate: Samples a second of rendered audio.
    """

    is_plain = True

    def __init__(self, spec: DataSpec, tokens_per_second: int = 20, sample_rate: int = 22050) -> None:
        tokens = spec.get("music_tokens")
        if not isinstance(tokens, TokenSpec) or len(tokens.grid) != 1:
            raise ValueError(f"spec has {', '.join(spec)}: SymbolicMusic expects data with music_tokens, such as Dance")
        if tokens_per_second < 1:
            raise ValueError(f"tokens_per_second is {tokens_per_second}: expected at least 1")
        for name, seconds in durations(spec).items():
            if not math.isclose(tokens.grid[0], seconds * tokens_per_second, rel_tol=1e-3):
                raise ValueError(
                    f"tokens_per_second is {tokens_per_second}: {tokens.grid[0]} tokens would last "
                    f"{tokens.grid[0] / tokens_per_second:g} s, and {name} lasts {seconds:g} s; expected "
                    f"{tokens.grid[0] / seconds:g}"
                )
        codec = SymbolicCodec(tokens.grid[0] / tokens_per_second, tokens_per_second, sample_rate)
        if codec.latent != tokens:
            raise ValueError(f"music_tokens is {tokens}: expected {codec.latent}; change tokens_per_second")
        music = spec.get("music")
        if isinstance(music, MusicSpec) and music.sample_rate != sample_rate:
            raise ValueError(f"sample_rate is {sample_rate}: expected {music.sample_rate}, that of the data's music")
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


def durations(spec: DataSpec) -> dict[str, float]:
    """Seconds of a clip, by the name of each modality that tells."""
    found = {name: part.num_samples / part.sample_rate for name, part in spec.items() if isinstance(part, MusicSpec)}
    return found | {name: part.num_frames / part.fps for name, part in spec.items() if isinstance(part, MotionSpec)}
