"""Dance: skeletons that dance in ten genres, and music of the same beats. No download."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.codecs.music import SymbolicCodec
from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.data.choreography import perform
from mmdiffusion.data.composition import compose
from mmdiffusion.data.rhythm import GENRES, TEMPI, Rhythm, draw_rhythm
from mmdiffusion.data.skeleton import JOINTS
from mmdiffusion.seeding import SampleNoise, stream_seed
from mmdiffusion.types import Batch, DataSpec, LabelSpec, MotionSpec

FPS = 60
_NUM_VAL, _NUM_TEST = 200, 400
_CLIPS = 0
"""Seed of the clips."""
_SLOWEST_BEAT = 60 / int(TEMPI.min())
_CHUNK = 128
"""Clips made at a time, which bounds the memory this takes."""


class Dance(DataModule):
    """Dance and music on one beat grid, made up: the form of AIST++ (Li et al. 2021) without its files.

    Each clip has a genre, one of the genre's six tempi, and begins anywhere in a bar. A dancer of some build performs
    moves of the genre whose poses fall on the beats, and a band plays a piece of the genre on the same beats. Tempo and
    phase are nowhere else in a batch: music can only be in time with a dance by what the motion shows. Dance and piece
    share nothing but genre, tempo and phase; other pieces would fit the dance as well.

    A batch holds `motion` (b, frames, 51: metres, COCO's joints), `label` (b, the genre), `music_tokens` (b, n),
    with `audio` also `music` (b, samples), and `index` (b). Clip i of a split is a function of (split, i) and has
    genre i modulo 10. Validation has 200 clips and test 400.

    Args:
        batch_size: Clips per training step and process, at least 1.
        eval_batch_size: Clips per batch in validation, test and prediction, at least 1.
        num_train: Training clips, at least 1.
        seconds: Length of a clip, a whole number of tokens and at least 0.75.
        audio: Whether a batch holds the music as audio too; it is rendered when the batch is fetched.
        seed: Seed of the order of the training clips; the clips are always the same.
    """

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        num_train: int = 2000,
        seconds: float = 6.0,
        audio: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if num_train < 1:
            raise ValueError(f"num_train is {num_train}: expected at least 1")
        if not seconds >= _SLOWEST_BEAT:
            raise ValueError(
                f"seconds is {seconds}: expected at least {_SLOWEST_BEAT}, a beat of the slowest tempo, so that no "
                "clip is silent"
            )
        self.codec = SymbolicCodec(seconds)
        self.audio = audio
        self.sizes: dict[Split, int] = {"train": num_train, "val": _NUM_VAL, "test": _NUM_TEST}
        self._splits: dict[Split, Arrays] = {}

    @property
    def spec(self) -> DataSpec:
        """Motion of 17 joints at 60 frames a second, ten genres, twenty tokens of music a second."""
        motion = MotionSpec(num_frames=round(self.codec.seconds * FPS), num_joints=len(JOINTS), fps=FPS)
        spec: DataSpec = {"motion": motion, "label": LabelSpec(len(GENRES), GENRES), "music_tokens": self.codec.latent}
        return spec | ({"music": self.codec.audio} if self.audio else {})

    def split(self, name: Split) -> Arrays:
        """One split; every process makes the same, at the first call."""
        if name not in self._splits:
            columns = self._columns(name)
            self._splits[name] = RenderedMusic(columns, self.codec) if self.audio else Arrays(columns)
        return self._splits[name]

    def rhythm(self, name: Split) -> Rhythm:
        """Genres, tempi and phases of the clips of a split: what a batch does not tell, to compare a guess with."""
        return self._rhythm(name, range(self.sizes[name]))

    def other_pieces(self, name: Split, indices: Sequence[int]) -> Int[Tensor, "b n"]:
        """Music tokens of other pieces that fit the dances as well: the same rhythm, every choice of the band anew.

        Args:
            name: The split.
            indices: Clips. Beyond the split they are counted on from the start again, with yet another piece.
        """
        rhythm = self._rhythm(name, [index % self.sizes[name] for index in indices])
        return self.codec.encode(compose(rhythm, self._noise(name, "another band", indices), self.codec.seconds))

    def _rhythm(self, split: Split, indices: Sequence[int]) -> Rhythm:
        return draw_rhythm(torch.tensor(indices) % len(GENRES), self._noise(split, "rhythm", indices))

    def _noise(self, split: Split, purpose: str, indices: Sequence[int]) -> SampleNoise:
        return SampleNoise(stream_seed(_CLIPS, f"dance/{split}/{purpose}", 0), indices)

    def _columns(self, split: Split) -> Batch:
        size, time = self.sizes[split], torch.arange(round(self.codec.seconds * FPS)) / FPS
        chunks = [range(i, min(i + _CHUNK, size)) for i in range(0, size, _CHUNK)]
        motion, tokens = [], []
        for indices in chunks:
            rhythm = self._rhythm(split, indices)
            motion.append(perform(rhythm, self._noise(split, "dancer", indices), time).flatten(2))
            pieces = compose(rhythm, self._noise(split, "band", indices), self.codec.seconds)
            tokens.append(self.codec.encode(pieces))
        label = torch.arange(size) % len(GENRES)
        return {"motion": torch.cat(motion), "label": label, "music_tokens": torch.cat(tokens)}


class RenderedMusic(Arrays):
    """A split whose `music` is rendered from `music_tokens` when it is fetched, for it is too large to keep.

    Args:
        columns: Modality name to values, `music_tokens` among them.
        codec: Renders.
    """

    def __init__(self, columns: Batch, codec: SymbolicCodec) -> None:
        super().__init__(columns)
        self.codec = codec

    def __getitem__(self, index: int) -> dict:
        """One sample."""
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once, with its music."""
        batch = super().__getitems__(indices)
        tokens = batch["music_tokens"]
        assert isinstance(tokens, Tensor)
        return batch | {"music": self.codec.render(tokens)}
