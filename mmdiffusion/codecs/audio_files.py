"""Music as files: MIDI and WAV."""

import wave
from pathlib import Path

import torch
from jaxtyping import Float
from pretty_midi import PrettyMIDI
from torch import Tensor


def write_midi(path: str | Path, music: PrettyMIDI) -> None:
    """Write a MIDI file.

    Args:
        path: The file.
        music: The notes.
    """
    music.write(str(path))


def write_wav(path: str | Path, audio: Float[Tensor, " s"], sample_rate: int) -> None:
    """Write a mono WAV file of 16 bits.

    Args:
        path: The file.
        audio: (s,) samples in [-1, 1].
        sample_rate: Samples a second.

    Raises:
        ValueError: if there is no sample, or one that is not a number in [-1, 1], or no sample rate.
    """
    if sample_rate < 1:
        raise ValueError(f"{path}: sample_rate is {sample_rate}, expected at least 1 sample a second")
    if not len(audio):
        raise ValueError(f"{path}: audio is empty, expected at least one sample")
    largest = float(audio.abs().max())
    if not largest <= 1:
        raise ValueError(f"{path}: audio reaches {largest}, expected numbers in [-1, 1]")
    levels = (audio.detach().cpu().float() * 32767).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(levels.numpy().astype("<i2").tobytes())
