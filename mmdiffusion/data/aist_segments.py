"""The published segments of AIST++ and of TikTok Dance-Music."""

from mmdiffusion.data.aist_motion import NUM_SMPL_FEATURES
from mmdiffusion.data.aist_names import FPS, parse_name
from mmdiffusion.data.base import Split
from mmdiffusion.data.rhythm import GENRES
from mmdiffusion.data.segments import DanceSegments
from mmdiffusion.types import DataSpec, LabelSpec, MotionFeatureSpec


class AISTSegments(DanceSegments):
    """AIST++ in the segments published with D2M-GAN (arXiv 2204.00604) and CDCD (arXiv 2206.07771).

    A batch holds `motion_features` (b frames 219, at 60 frames a second), `label` (b, the genre, by the segment's
    name), `music` (b samples), with `video` also `video` (b 2048, I3D), and `index` (b). Published are 6,632, 86 and 86
    segments of two seconds, 2,581, 36 and 36 of six.

    Args:
        root: Folder with `audio_s2` and `motion_s2` (and `video_s2`), each with `train`, `val` and `test`; or one that
            has it inside.
        lists: Folder with `aist_audio_train_segment.txt` and so on (those of six seconds end in `_s6`), as in CDCD's
            `data/`; `None` takes every file.
        seconds: 2 or 6.
        sample_rate: Samples of music a second.
        video: Whether a batch holds the I3D features.
        gain: Range of a factor on the loudness of training music, after its peak is set to 0.95, as in the public code;
            in validation and test it is 1. `None` keeps the music as loud as it is.
        batch_size: Clips per training step and process, at least 1.
        eval_batch_size: Clips per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of clips that may be damaged, in [0, 1).
        seed: Seed of the order of the training clips and of their loudness.
    """

    def __init__(
        self,
        root: str,
        lists: str | None = None,
        seconds: int = 2,
        sample_rate: int = 22050,
        video: bool = False,
        gain: tuple[float, float] | None = (0.3, 1.0),
        batch_size: int = 16,
        eval_batch_size: int = 43,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        if seconds not in (2, 6):
            raise ValueError(
                f"seconds is {seconds}: expected 2 or 6, which are published; AIST cuts clips of any length"
            )
        motion = MotionFeatureSpec(seconds * FPS, NUM_SMPL_FEATURES, FPS)
        reading = (batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        super().__init__(root, lists, motion, sample_rate, video, gain, *reading)

    def list_name(self, split: Split) -> str:
        """See `DanceSegments`."""
        return f"aist_audio_{split}_segment{'' if self.seconds == 2 else '_s6'}.txt"

    def published(self, split: Split) -> int:
        """See `DanceSegments`."""
        return {2: (6632, 86), 6: (2581, 36)}[self.seconds][split != "train"]

    def genre(self, stem: str) -> int:
        """See `DanceSegments`."""
        return parse_name(stem.rsplit("/", 1)[-1].rsplit("_seg", 1)[0]).genre

    @property
    def spec(self) -> DataSpec:
        """Motion, music, ten genres, and perhaps a video feature; known without any file."""
        return super().spec | {"label": LabelSpec(len(GENRES), GENRES)}


class TikTok(DanceSegments):
    """TikTok Dance-Music in the segments of two seconds published with D2M-GAN (arXiv 2204.00604).

    A batch holds `motion_features` (b 60 75: 25 points of a body in the picture, x, y and confidence, at 30 frames a
    second, in the units of the files), `music` (b samples), with `video` also `video` (b 2048, I3D), and `index` (b).
    There is no genre. Published are 2,384 training and 307 test segments and no validation split: as in the public
    code, validation reads the test split, so what is chosen by it is chosen on the test split.

    Args:
        root: Folder with `audio_s2` and `motion_s2` (and `video_s2`), or one that has it inside.
        lists: Folder with `tiktok_audio_train_segment.txt` and `tiktok_audio_test_segment.txt`, D2M-GAN's `dataset/`.
        sample_rate: Samples of music a second.
        video: Whether a batch holds the I3D features.
        gain: Range of a factor on the loudness of training music, after its peak is set to 0.95, as in the public code;
            in validation and test it is 1. `None` keeps the music as loud as it is.
        batch_size: Clips per training step and process, at least 1.
        eval_batch_size: Clips per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of clips that may be damaged, in [0, 1).
        seed: Seed of the order of the training clips and of their loudness.
    """

    def __init__(
        self,
        root: str,
        lists: str,
        sample_rate: int = 22050,
        video: bool = False,
        gain: tuple[float, float] | None = (0.3, 1.0),
        batch_size: int = 12,
        eval_batch_size: int = 44,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        motion = MotionFeatureSpec(60, 75, 30)
        reading = (batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        super().__init__(root, lists, motion, sample_rate, video, gain, *reading)

    def list_name(self, split: Split) -> str:
        """See `DanceSegments`."""
        return f"tiktok_audio_{'train' if split == 'train' else 'test'}_segment.txt"

    def published(self, split: Split) -> int:
        """See `DanceSegments`."""
        return 2384 if split == "train" else 307
