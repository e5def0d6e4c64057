"""AIST: dances of AIST++ and the music they were danced to, from the archive as its publishers offer it."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.data.aist_archive import PUBLISHER, present, split_names, windows
from mmdiffusion.data.aist_motion import NUM_KEYPOINTS, NUM_SMPL_FEATURES, Dance, KeypointDance, SMPLDance, open_dance
from mmdiffusion.data.aist_music import Music, Pieces, SoundTracks
from mmdiffusion.data.aist_names import FPS, DanceName
from mmdiffusion.data.audio import loudness
from mmdiffusion.data.base import Split
from mmdiffusion.data.clips import VIDEO, check_clips, read_numbers
from mmdiffusion.data.files import DamagedError, FileDataModule, Files, Sample
from mmdiffusion.data.layout import unpacked
from mmdiffusion.data.rhythm import GENRES
from mmdiffusion.types import DataSpec, LabelSpec, MotionFeatureSpec, MotionSpec, MusicSpec

Motion = Literal["smpl", "keypoints"]
_MOTIONS = {"smpl": ("motion_features", "motions", SMPLDance), "keypoints": ("motion", "keypoints3d", KeypointDance)}
"""Entry of a batch, folder of the archive, and what its files hold."""
_MOST_MISSING = 12
"""Frames by which a file may be shorter than its dance; its last window then begins as much earlier."""


class AIST(FileDataModule):
    """AIST++ (Li et al. 2021, arXiv 2101.08779): clips of dances and the music they were danced to; cross-modal split.

    At 60 frames a second, a batch holds `motion_features` (b frames 219: the root in metres, then 24 rotation matrices)
    or `motion` (b frames 51: COCO's joints in metres), `label` (b, the genre), `music` (b samples) and `index`
    (b). Files are read when they are needed. The training split shares neither pieces nor choreographies with the
    others; validation and test share their ten pieces.

    Args:
        root: The annotations, unpacked: a folder with `motions`, `keypoints3d`, `splits` and `ignore_list.txt`, or one
            that has it inside.
        music: Folder with the pieces, `mBR0.wav` and so on; `None` for `music` beside `motions`.
        videos: Folder with the videos of the first camera, whose sound tracks are taken instead; needs `ffmpeg`.
        video_features: Folder with an I3D feature for each window, `<split>/gBR_sBM_c01_d04_mBR0_ch01_seg1.npy`, as
            published with D2M-GAN: a batch then holds `video` (b 2048). `None` for none.
        motion: `smpl` for `motion_features`, as in CDCD, or `keypoints` for `motion`, which `BeatAlignment` can read.
        seconds: Length of a clip, a whole number of frames.
        stride: Seconds from one clip of a dance to the next; `None` for clips side by side, as published.
        sample_rate: Samples of music a second.
        gain: Range of a factor on the loudness of training music, after its peak is set to 0.95, as in the public code
            of D2M-GAN and CDCD; in validation and test it is 1. `None` keeps the music as loud as it is.
        drop_ignored: Whether to leave out dances whose motion the publishers call faulty; CDCD keeps them.
        batch_size: Clips per training step and process, at least 1.
        eval_batch_size: Clips per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of clips that may be damaged, in [0, 1).
        seed: Seed of the order of the training clips and of their loudness.
    """

    def __init__(
        self,
        root: str,
        music: str | None = None,
        videos: str | None = None,
        video_features: str | None = None,
        motion: Motion = "smpl",
        seconds: float = 2.0,
        stride: float | None = None,
        sample_rate: int = 22050,
        gain: tuple[float, float] | None = (0.3, 1.0),
        drop_ignored: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 43,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        if music is not None and videos is not None:
            raise ValueError(f"music is {music}, videos is {videos}: expected one of them, the other None")
        if video_features is not None and stride not in (None, seconds):
            raise ValueError(f"stride is {stride}: expected None, video_features are of clips side by side")
        self.root, self.music, self.videos, self.video_features = root, music, videos, video_features
        self.motion, self.gain, self.drop_ignored = motion, gain, drop_ignored
        self.length = check_clips(seconds, FPS, sample_rate, gain)
        self.stride = self.length if stride is None else check_clips(stride, FPS, sample_rate, gain, "stride")
        self.audio = MusicSpec(round(seconds * sample_rate), sample_rate)

    @property
    def spec(self) -> DataSpec:
        """Motion at 60 frames a second, ten genres, music; known without any file."""
        spec: DataSpec = {"label": LabelSpec(len(GENRES), GENRES), "music": self.audio}
        if self.motion == "smpl":
            spec["motion_features"] = MotionFeatureSpec(self.length, NUM_SMPL_FEATURES, FPS)
        else:
            spec["motion"] = MotionSpec(self.length, NUM_KEYPOINTS, FPS)
        return spec if self.video_features is None else spec | {"video": VIDEO}

    def prepare_data(self) -> None:
        """Look for the files of all splits before anything is written; see `DataModule`."""
        super().prepare_data()
        for name in ("val", "test"):
            self.split(name)

    def files(self, name: Split) -> "DanceWindows":
        """Index one split: by names alone, no file is opened."""
        what = f"the annotations of AIST++, from {PUBLISHER}"
        folder = unpacked(self.root, "splits", what)
        names = split_names(folder, name, self.drop_ignored)
        names = present(names, folder / _MOTIONS[self.motion][1], name)
        if self.videos is None:
            music: Music = Pieces(folder / "music" if self.music is None else Path(self.music))
        else:
            music = SoundTracks(Path(self.videos))
        music.check(names)
        return DanceWindows(self, folder, names, music, name)


class DanceWindows(Files):
    """Windows of dances, read one by one.

    Args:
        data: Their settings.
        folder: The annotations.
        names: The dances.
        music: Their music.
        split: Which split it is.
    """

    def __init__(self, data: AIST, folder: Path, names: list[DanceName], music: Music, split: Split) -> None:
        self.folder, self.names, self.music, self.split_name = folder, names, music, split
        self.motion, self.length, self.audio, self.gain = data.motion, data.length, data.audio, data.gain
        self.video_features = data.video_features
        self.dance, self.start, self.number = index(names, data.length, data.stride)
        if not len(self.dance):
            raise ValueError(f"seconds is {data.length / FPS}: expected less, no dance of the {split} split is as long")
        super().__init__(len(self.dance), data.max_bad_fraction, data.seed)

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One window; see `Files`."""
        name, start = self.names[int(self.dance[row])], int(self.start[row])
        dance = self._dance(name)
        start = min(start, dance.num_frames - self.length)
        sample: Sample = {_MOTIONS[self.motion][0]: dance.window(start, self.length)}
        clip = self.music.clip(name, start / FPS, self.audio.num_samples, self.audio.sample_rate)
        is_training = self.split_name == "train"
        sample |= {"label": name.genre, "music": loudness(clip, self.gain, generator if is_training else None)}
        return sample if self.video_features is None else sample | {"video": self._video(row, name)}

    def _dance(self, name: DanceName) -> Dance:
        _, folder, kind = _MOTIONS[self.motion]
        path = self.folder / folder / f"{name.text}.pkl"
        dance = open_dance(kind, path)
        if dance.num_frames < max(name.num_frames - _MOST_MISSING, self.length):
            raise DamagedError(
                path, f"it has {dance.num_frames} frames: expected {name.num_frames}, by tempo and beats"
            )
        return dance

    def _video(self, row: int, name: DanceName) -> Float[Tensor, " d"]:
        file = f"{name.seen_by(1)}_seg{int(self.number[row])}.npy"
        path = Path(str(self.video_features)) / self.split_name / file
        return read_numbers(path, (VIDEO.shape[0],))


def index(names: list[DanceName], length: int, stride: int) -> Int[Tensor, "3 n"]:
    """All windows: the row of the dance, the first frame, and the window's number in its dance, from 1.

    Args:
        names: The dances.
        length: Frames of a window.
        stride: Frames from one window to the next.
    """
    starts = [windows(name.num_frames, length, stride) for name in names]
    rows = [(dance, start, i) for dance, found in enumerate(starts) for i, start in enumerate(found, start=1)]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T
