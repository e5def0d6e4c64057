"""Do the beats of the dance fall on beats of the music?"""

from jaxtyping import Float
from torch import Tensor

from mmdiffusion.metrics.beats import beat_alignment
from mmdiffusion.metrics.clips import ClipMetric, mean_over_clips, spread_over_clips
from mmdiffusion.metrics.onsets import AudioBeats, BeatDetector


class BeatAlignment(ClipMetric):
    """Beat Alignment Score: how near each beat of the dance is to a beat of the music, higher is better.

    exp(-d^2 / (2 sigma^2)) with d from a beat of the *motion* to the nearest beat of the *music*, averaged over the
    beats of a clip and then over clips. Too many beats in the music are no fault in this direction, hence the beats per
    clip in the protocol; Bailando takes each beat of the music to the nearest of the motion instead.
    Source: Li et al. 2021 (arXiv:2101.08779); github.com/google-research/mint, tools/calculate_beat_scores.py, where a
    dance without a beat counts 0, as here.

    Args:
        music_beats: Finds the beats of the music.
        motion_beats: Finds the beats of the motion.
        sigma: Width in seconds, above 0; 0.05 is the paper's 3 frames at 60 a second.

    Raises:
        ValueError: If `sigma` is not above 0.
    """

    inputs = ("music", "motion")

    def __init__(
        self,
        music_beats: AudioBeats,
        motion_beats: BeatDetector,
        sigma: float = 0.05,
    ) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"sigma: found {sigma}, expected seconds above 0; the paper's value is 0.05")
        self.music_beats, self.motion_beats, self.sigma = music_beats, motion_beats, sigma

    def name(self) -> str:
        """`beat_alignment[...]` with the names of both detectors, the motion's first."""
        return f"beat_alignment[{self.motion_beats.name}-{self.music_beats.name}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Detectors, sigma, direction, number of clips, clips without a beat, beats per clip, spread over clips."""
        return {
            "music_beats": self.music_beats.signature(),
            "motion_beats": self.motion_beats.signature(),
            "sigma": self.sigma,
            "direction": "each motion beat to the nearest music beat",
            "without_beats": "a clip without beats on either side counts as 0",
        } | super().protocol()

    def update(self, music: Float[Tensor, "b samples"], motion: Float[Tensor, "b frames coordinates"]) -> None:
        """Add clips.

        Args:
            music: (b samples) mono in [-1, 1].
            motion: (b frames joints*3) positions of joints; both begin at the same moment.

        Raises:
            ValueError: If a clip holds NaN, or its shape does not suit its detector.
        """
        pairs = zip(self.motion_beats(motion), self.music_beats(music), strict=True)
        self.add([(len(dance), len(song), float(beat_alignment(dance, song, self.sigma))) for dance, song in pairs])

    def value(self, table: Float[Tensor, "b 3"]) -> Float[Tensor, ""]:
        """Mean over clips, in [0, 1]."""
        return mean_over_clips(table[:, 2])

    def details(self, table: Float[Tensor, "b 3"]) -> dict[str, str | int | float]:
        """Clips without a beat and beats per clip on either side, and from two clips on the spread over clips."""
        dance, song, scores = table.unbind(1)
        figures: dict[str, str | int | float] = {
            "num_without_motion_beats": int((dance == 0).sum()),
            "num_without_music_beats": int((song == 0).sum()),
            "motion_beats_per_clip": float(dance.mean()),
            "music_beats_per_clip": float(song.mean()),
        }
        return figures | {"spread": float(spread_over_clips(scores))} if len(table) > 1 else figures
