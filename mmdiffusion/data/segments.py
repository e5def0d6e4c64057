"""Dances cut into segments, as published with D2M-GAN and CDCD: a wav, a motion and a video feature for each."""

from abc import abstractmethod
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn

from mmdiffusion.data.audio import loudness, read_audio
from mmdiffusion.data.base import Split
from mmdiffusion.data.clips import VIDEO, check_clips, read_numbers
from mmdiffusion.data.files import FileDataModule, Files, Sample
from mmdiffusion.data.layout import unpacked
from mmdiffusion.types import DataSpec, MotionFeatureSpec, MusicSpec

PUBLISHER = "https://github.com/L-YeZhu/D2M-GAN (its README links the files, dataset/ holds the lists)"


class DanceSegments(FileDataModule):
    """Segments of dances in the folders `audio_s2`, `motion_s2` and `video_s2`, or `audio_s6` and so on.

    Args:
        root: Folder with these, or one that has it inside.
        lists: Folder with the published lists; `None` takes every file there is.
        motion: What a motion file holds.
        sample_rate: Samples of music a second.
        video: Whether a batch holds the video features.
        gain: Range of a factor on the loudness of training music; `None` keeps it as it is.
        batch_size: Clips per training step and process, at least 1.
        eval_batch_size: Clips per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of clips that may be damaged, in [0, 1).
        seed: Seed of the order of the training clips and of their loudness.
    """

    def __init__(
        self,
        root: str,
        lists: str | None,
        motion: MotionFeatureSpec,
        sample_rate: int,
        video: bool,
        gain: tuple[float, float] | None,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        max_bad_fraction: float,
        seed: int,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        self.root, self.lists, self.motion, self.video, self.gain = root, lists, motion, video, gain
        self.seconds = motion.num_frames // motion.fps
        check_clips(float(self.seconds), motion.fps, sample_rate, gain)
        self.audio = MusicSpec(self.seconds * sample_rate, sample_rate)

    @abstractmethod
    def list_name(self, split: Split) -> str:
        """File name of the list of the sounds of a split."""

    @abstractmethod
    def published(self, split: Split) -> int:
        """Number of segments that are published for a split."""

    def genre(self, stem: str) -> int | None:
        """Genre of a segment by its name; `None` where there is none."""
        return None

    @property
    def spec(self) -> DataSpec:
        """Motion, music, and perhaps a video feature; known without any file."""
        spec: DataSpec = {"motion_features": self.motion, "music": self.audio}
        return spec | ({"video": VIDEO} if self.video else {})

    def prepare_data(self) -> None:
        """Look for the files of all splits before anything is written; see `DataModule`."""
        super().prepare_data()
        for name in ("val", "test"):
            self.split(name)

    def files(self, name: Split) -> "SegmentFiles":
        """Index one split by the names of its files."""
        parts = ("audio", "motion", "video") if self.video else ("audio", "motion")
        what = f"the segments of {self.seconds} seconds, from {PUBLISHER}"
        folder = unpacked(self.root, f"audio_s{self.seconds}", what)
        folders = {part: folder / f"{part}_s{self.seconds}" for part in parts}
        listed = self._listed(folders["audio"], name)
        missing = {stem: lacking(folders, stem) for stem in listed}
        found = [stem for stem in listed if missing[stem] is None]
        if not found:
            raise ValueError(
                f"{missing[listed[0]]} is missing, as are files of all {len(listed)} segments: expected {what}"
            )
        if len(found) != self.published(name):
            rank_zero_warn(
                f"{type(self).__name__} {name}: {len(found)} segments with all their files, of {len(listed)} named, "
                f"published are {self.published(name)}; figures are comparable with others' for a whole split only"
            )
        return SegmentFiles(self, folders, found, is_training=name == "train")

    def _listed(self, folder: Path, split: Split) -> list[str]:
        """Segments of a split by their path in a folder, without an extension."""
        if self.lists is None:
            found = sorted(path.relative_to(folder) for path in (folder / split).glob("*.wav"))
            if not found:
                raise ValueError(f"{folder / split} has no .wav: expected the {split} split, or lists to find it by")
            return [str(path.with_suffix("")) for path in found]
        path = Path(self.lists) / self.list_name(split)
        if not path.is_file():
            raise ValueError(f"lists is {self.lists}: it has no {path.name}; expected the lists of {PUBLISHER}")
        lines = [line.replace("\\", "/") for line in path.read_text(encoding="utf-8").split()]
        return [stem_in(line, folder.name, path) for line in lines]


def lacking(folders: dict[str, Path], stem: str) -> Path | None:
    """The first file that a segment lacks; `None` where it has all.

    Args:
        folders: Where the files of each kind are.
        stem: The segment, by its path in these folders.
    """
    files = (_file(folders, part, stem) for part in folders)
    return next((file for file in files if not file.is_file()), None)


def _file(folders: dict[str, Path], part: str, stem: str) -> Path:
    return folders[part] / f"{stem}{'.wav' if part == 'audio' else '.npy'}"


def stem_in(line: str, folder: str, path: Path) -> str:
    """What stands behind a folder in a path of another machine: `/data/x/audio_s2/test/a.wav` is `test/a`.

    Args:
        line: The path.
        folder: Name of the folder, `audio_s2`.
        path: The list, for the message.

    Raises:
        ValueError: if the folder is not part of the path, or what follows leaves it.
    """
    parts = line.split("/")
    if folder not in parts or ".." in parts[parts.index(folder) :]:
        raise ValueError(f"{path} has the line {line!r}: expected a file in {folder}, such as {folder}/test/NAME.wav")
    return "/".join(parts[parts.index(folder) + 1 :]).removesuffix(".wav")


class SegmentFiles(Files):
    """Segments, read one by one.

    Args:
        data: Their settings.
        folders: Where the files of each kind are.
        stems: The segments, by their paths in these folders.
        is_training: Whether loudness is drawn.
    """

    def __init__(self, data: DanceSegments, folders: dict[str, Path], stems: list[str], is_training: bool) -> None:
        super().__init__(len(stems), data.max_bad_fraction, data.seed)
        self.folders, self.stems, self.is_training, self.gain = folders, stems, is_training, data.gain
        self.motion, self.audio, self.seconds = data.motion, data.audio, data.seconds
        self.genres = [data.genre(stem) for stem in stems]

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One segment; see `Files`. A sound that is shorter ends in silence, as in the public code."""
        stem, genre = self.stems[row], self.genres[row]
        shape = (self.motion.num_frames, self.motion.num_features)
        path = _file(self.folders, "audio", stem)
        clip = read_audio(path, 0.0, self.audio.num_samples, self.audio.sample_rate, shortfall=float(self.seconds))
        sample: Sample = {
            "motion_features": read_numbers(_file(self.folders, "motion", stem), shape),
            "music": loudness(clip, self.gain, generator if self.is_training else None),
        }
        sample |= {} if genre is None else {"label": genre}
        if "video" in self.folders:
            sample["video"] = read_numbers(_file(self.folders, "video", stem), VIDEO.shape)
        return sample
