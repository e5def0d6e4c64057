"""Where the music of AIST++ dances is: the pieces as files, or the sound tracks of the videos."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.aist_names import DanceName
from mmdiffusion.data.audio import check_ffmpeg, read_audio, read_sound_track

OFFER = (
    "the annotations of AIST++ hold no music; its 60 pieces and the videos are those of the AIST Dance Video Database, "
    "offered for research under its own terms at https://aistdancedb.ongaaccel.jp/database_download/"
)


class Music(ABC):
    """The music of dances, each of which begins when its music does.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def path(self, name: DanceName) -> Path:
        """The file that a dance is danced to."""

    @abstractmethod
    def clip(self, name: DanceName, start: float, num_samples: int, sample_rate: int) -> Float[Tensor, " s"]:
        """Part of the music of a dance, mono.

        Args:
            name: The dance.
            start: Seconds from its beginning.
            num_samples: Samples of the part.
            sample_rate: Their rate, a second.

        Raises:
            DamagedError: if the file cannot be read, or ends before.
        """

    def check(self, names: Sequence[DanceName]) -> None:
        """Check that there is music for all dances.

        Raises:
            ValueError: naming the folder, what it lacks, and where it is offered.
        """
        stored = {path.name for path in self.folder.glob("*")} if self.folder.is_dir() else set()
        wanted = sorted({self.path(name).name for name in names})
        missing = [name for name in wanted if name not in stored]
        if missing:
            named = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise ValueError(
                f"{self.folder} lacks {named}, of {len(wanted)} files that are needed; put them there, or name their "
                f"folder: {OFFER}"
            )


class Pieces(Music):
    """One file for each piece, `mBR0.wav`.

    Args:
        folder: Where the files are.
    """

    def path(self, name: DanceName) -> Path:
        """See `Music`."""
        return self.folder / f"{name.music}.wav"

    def clip(self, name: DanceName, start: float, num_samples: int, sample_rate: int) -> Float[Tensor, " s"]:
        """See `Music`."""
        return read_audio(self.path(name), start, num_samples, sample_rate)


class SoundTracks(Music):
    """The videos of the first camera, `gBR_sBM_c01_d04_mBR0_ch01.mp4`, read by the command `ffmpeg`.

    Args:
        folder: Where the files are.

    Raises:
        ValueError: if there is no such command.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        check_ffmpeg()

    def path(self, name: DanceName) -> Path:
        """See `Music`."""
        return self.folder / f"{name.seen_by(1)}.mp4"

    def clip(self, name: DanceName, start: float, num_samples: int, sample_rate: int) -> Float[Tensor, " s"]:
        """See `Music`."""
        return read_sound_track(self.path(name), start, num_samples, sample_rate)
