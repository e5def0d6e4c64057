"""SymbolicCodec: music as one token per twentieth of a second, exactly.

The grid of tokens is laid over seconds, never over beats: a token says what starts within its slot and nothing about
tempo, so a model that writes music to a dance has to hear tempo and phase in the dance.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from pretty_midi import Instrument, Note, PrettyMIDI
from torch import Tensor

from mmdiffusion.codecs.instruments import BAND, Sound, Voice
from mmdiffusion.types import MusicSpec, TokenSpec

VELOCITY = 100
SHORTEST_NOTE = 0.02
"""Seconds; a note ends before the next of its voice begins."""


class SymbolicCodec:
    """Notes of a small band to tokens and back without loss, and tokens to audio by a synthesiser of its own.

    A code is a number with one digit a voice (kick, backbeat, cymbal, bass, chord): 0 rests, i starts its i-th sound.
    So there are 2 * 3 * 3 * 4 * 3 = 216 codes, and code 0 is a slot in which nothing starts. Decoded notes start in the
    middle of their slot: half a slot, 25 ms at the default rate, is the largest error of a start. Nothing is learned.

    Args:
        seconds: Length of a clip, a whole number of tokens.
        tokens_per_second: Slots of the time grid in a second.
        sample_rate: Samples a second of rendered audio.
    """

    def __init__(self, seconds: float = 6.0, tokens_per_second: int = 20, sample_rate: int = 22050) -> None:
        if tokens_per_second < 1 or sample_rate < 1:
            raise ValueError(
                f"tokens_per_second is {tokens_per_second}, sample_rate is {sample_rate}: expected at least 1 of each"
            )
        if not math.isfinite(seconds):
            raise ValueError(f"seconds is {seconds}: expected the length of a clip, a number")
        length = round(seconds * tokens_per_second)
        if length < 1:
            raise ValueError(f"seconds is {seconds}: shorter than a token, expected at least {1 / tokens_per_second}")
        if not math.isclose(length, seconds * tokens_per_second):
            raise ValueError(f"seconds is {seconds}: expected a multiple of {1 / tokens_per_second}, one token")
        self.seconds, self.tokens_per_second, self.length = seconds, tokens_per_second, length
        self._audio = MusicSpec(num_samples=round(seconds * sample_rate), sample_rate=sample_rate)
        self._bases = [1 + len(voice.sounds) for voice in BAND]
        self._sounds = {(i, j): sound for i, voice in enumerate(BAND) for j, sound in enumerate(voice.sounds, start=1)}
        self._waveforms = {digit: sound.samples(sample_rate) for digit, sound in self._sounds.items()}
        self._voice_of = {
            (voice.program, pitch): i
            for i, voice in enumerate(BAND)
            for sound in voice.sounds
            for pitch in sound.pitches
        }

    @property
    def latent(self) -> TokenSpec:
        """Tokens of a clip."""
        return TokenSpec(num_codes=math.prod(self._bases), grid=(self.length,))

    @property
    def audio(self) -> MusicSpec:
        """Rendered audio of a clip."""
        return self._audio

    # Notes and tokens --------------------------------------------------------------------------------------------

    def encode(self, music: Sequence[PrettyMIDI]) -> Int[Tensor, "b n"]:
        """Tokens of clips.

        Args:
            music: Clips played by the band, all notes within `seconds`.

        Raises:
            ValueError: if a clip has no note, or one that no voice can play, or one outside the clip.
        """
        digits = torch.zeros(len(music), self.length, len(BAND), dtype=torch.int64)
        for clip, midi in enumerate(music):
            for (slot, voice), pitches in self._started(midi, clip).items():
                digits[clip, slot, voice] = self._digit(BAND[voice], pitches, clip, slot)
        return self._code(digits)

    def decode(self, tokens: Int[Tensor, "b n"]) -> list[PrettyMIDI]:
        """Clips of these tokens; `encode` gives the tokens back. A clip of zeros only is silent and has no note.

        Args:
            tokens: (b n) codes.

        Raises:
            ValueError: if a token is outside the codebook, or a clip has another length than `latent` says.
        """
        return [self._play(digits) for digits in self._digits(tokens).cpu()]

    def _started(self, midi: PrettyMIDI, clip: int) -> dict[tuple[int, int], set[int]]:
        """Pitches that start, by (slot, voice)."""
        started: dict[tuple[int, int], set[int]] = defaultdict(set)
        for instrument in midi.instruments:
            program = None if instrument.is_drum else instrument.program
            for note in instrument.notes:
                where = f"music[{clip}]: the note of pitch {note.pitch} at {note.start:.3f} s"
                if not 0 <= note.start < self.seconds:
                    raise ValueError(f"{where} is outside the clip: expected a start in [0, {self.seconds})")
                if (program, note.pitch) not in self._voice_of:
                    player = "the drums" if program is None else f"program {program}"
                    raise ValueError(f"{where}, played by {player}, has no code: expected one of {_repertoire()}")
                started[int(note.start * self.tokens_per_second), self._voice_of[program, note.pitch]].add(note.pitch)
        if not started:
            raise ValueError(f"music[{clip}] is silent: expected at least one note")
        return started

    def _digit(self, voice: Voice, pitches: set[int], clip: int, slot: int) -> int:
        for digit, sound in enumerate(voice.sounds, start=1):
            if pitches == set(sound.pitches):
                return digit
        raise ValueError(
            f"music[{clip}]: the {voice.name} starts pitches {sorted(pitches)} together at "
            f"{slot / self.tokens_per_second:.3f} s, which have no code: expected one of {_repertoire()}"
        )

    def _play(self, digits: Int[Tensor, "n v"]) -> PrettyMIDI:
        """Notes of one clip, one instrument a program."""
        midi, instruments = PrettyMIDI(), {}
        for i, voice in enumerate(BAND):
            if voice.program not in instruments:
                name = "drums" if voice.program is None else voice.name
                instruments[voice.program] = Instrument(voice.program or 0, is_drum=voice.program is None, name=name)
            slots = digits[:, i].nonzero().flatten().tolist()
            for slot in slots:
                start = (slot + 0.5) / self.tokens_per_second
                following = bisect_right(slots, slot)
                limit = slots[following] / self.tokens_per_second if following < len(slots) else self.seconds
                sound = self._sounds[i, int(digits[slot, i])]
                end = min(start + sound.seconds, limit)
                instruments[voice.program].notes += [Note(VELOCITY, pitch, start, end) for pitch in sound.pitches]
        midi.instruments += instruments.values()
        return midi

    # Tokens and audio --------------------------------------------------------------------------------------------

    def render(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b s"]:
        """Audio of clips: mono, in [-1, 1]. A clip of zeros only is silence.

        Args:
            tokens: (b n) codes.

        Raises:
            ValueError: as in `decode`.
        """
        digits = self._digits(tokens).cpu()
        rate = self.audio.sample_rate
        longest = max(len(waveform) for waveform in self._waveforms.values())
        audio = torch.zeros(len(digits), self.audio.num_samples + longest)
        for (voice, digit), waveform in self._waveforms.items():
            rows, slots = (digits[..., voice] == digit).nonzero(as_tuple=True)
            starts = ((slots + 0.5) * (rate / self.tokens_per_second)).round().long()
            places = starts[:, None] + torch.arange(len(waveform))
            audio.index_put_((rows[:, None], places), waveform.expand(places.shape), accumulate=True)
        return audio[:, : self.audio.num_samples].tanh().to(tokens.device)

    # Codes and digits --------------------------------------------------------------------------------------------

    def _code(self, digits: Int[Tensor, "b n v"]) -> Int[Tensor, "b n"]:
        places = torch.tensor([math.prod(self._bases[:i]) for i in range(len(BAND))])
        return (digits * places).sum(-1)

    def _digits(self, tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b n v"]:
        if tokens.shape[1] != self.length:
            raise ValueError(f"tokens has {tokens.shape[1]} a clip: expected {self.length} for {self.seconds} s")
        wrong = tokens[(tokens < 0) | (tokens >= self.latent.num_codes)]
        if len(wrong):
            raise ValueError(
                f"tokens has {int(wrong[0])}, outside the codebook: expected 0 to {self.latent.num_codes - 1}; a mask "
                "state of a diffusion process is no code"
            )
        digits = []
        for base in self._bases:
            digits.append(tokens % base)
            tokens = tokens // base
        return torch.stack(digits, dim=-1)


def _repertoire() -> str:
    """What the band can play, for messages."""
    return "; ".join(f"{voice.name}: {', '.join(_name(sound) for sound in voice.sounds)}" for voice in BAND)


def _name(sound: Sound) -> str:
    return f"{sound.name} {list(sound.pitches)}"
