"""Does generated music keep the beat of the real music that belongs to the same condition?"""

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mmdiffusion.metrics import beats
from mmdiffusion.metrics.clips import ClipMetric, mean_over_clips, spread_over_clips
from mmdiffusion.metrics.onsets import AudioBeats

Times = Float[Tensor, " _"]
Table = Float[Tensor, "b 3"]


class _BeatMetric(ClipMetric):
    """Beats of `music` against beats of `reference_music`; a row counts those of the sample, the reference, and pairs.

    Attributes:
        title: First part of the name.
        average: How clips become one value, for the protocol.
    """

    inputs = ("music", "reference_music")
    title: ClassVar[str]
    average: ClassVar[str] = "mean over clips"

    def __init__(
        self,
        detector: AudioBeats,
    ) -> None:
        super().__init__()
        self.detector = detector

    @abstractmethod
    def tolerance_name(self) -> str:
        """When two beats agree, as it stands in the name."""

    @abstractmethod
    def match(self, times: Times, reference: Times, num_samples: int) -> tuple[int, int, int]:
        """Beats of the sample, beats of the reference, pairs, of one clip of so many samples."""

    def name(self) -> str:
        """What is measured, with detector and tolerance in brackets."""
        return f"{self.title}[{self.detector.name}-{self.tolerance_name()}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Detector, tolerance, average, number of clips, clips without a beat, spread over clips."""
        return {
            "detector": self.detector.signature(),
            "tolerance": self.tolerance_name(),
            "average": self.average,
            "without_beats": "a share of no beats counts as 0",
        } | super().protocol()

    def update(
        self,
        music: Float[Tensor, "b samples"],
        reference_music: Float[Tensor, "b reference_samples"],
    ) -> None:
        """Add generated clips and the real clips that belong to the same conditions.

        Args:
            music: (b samples) mono in [-1, 1].
            reference_music: (b reference_samples) mono in [-1, 1], at the same sample rate.

        Raises:
            ValueError: If a clip holds NaN, is shorter than the detector's window, or lasts another number of seconds
                than its reference.
        """
        sizes, rate = (music.shape[1], reference_music.shape[1]), self.detector.sample_rate
        if len({beats.num_bins(size, rate) for size in sizes}) > 1:
            raise ValueError(
                f"{self.name()}: found music of {sizes[0]} and reference_music of {sizes[1]} samples, expected the "
                f"same number of seconds at {rate} Hz; cut both to one length"
            )
        pairs = zip(self.detector(music), self.detector(reference_music), strict=True)
        self.add([self.match(times, reference, sizes[0]) for times, reference in pairs])

    def details(self, table: Table) -> dict[str, str | int | float]:
        """Clips without a beat in the sample, and in the reference."""
        empty = (table[:, :2] == 0).sum(0).tolist()
        return {"num_without_beats": empty[0], "num_without_reference_beats": empty[1]}


class _ScoreMetric(_BeatMetric):
    """Mean of one score a clip.

    Attributes:
        score: Turns counts (b 3) into scores (b,).
    """

    score: ClassVar["staticmethod[[Tensor], Tensor]"]  # in quotes: Python 3.11 takes no index of staticmethod

    def value(self, table: Table) -> Float[Tensor, ""]:
        """Mean over clips."""
        return mean_over_clips(self.score(table))

    def details(self, table: Table) -> dict[str, str | int | float]:
        """Clips without a beat, and from two clips on the spread over clips."""
        figures = super().details(table)
        return figures | {"spread": float(spread_over_clips(self.score(table)))} if len(table) > 1 else figures


class _InSeconds(_BeatMetric):
    """Beats agree if they fall into the same whole second, counted from the start of the clip."""

    def tolerance_name(self) -> str:
        """One second."""
        return "1s"

    def match(self, times: Times, reference: Times, num_samples: int) -> tuple[int, int, int]:
        """Seconds with a beat in the sample, in the reference, in both."""
        return beats.matches_in_bins(times, reference, beats.num_bins(num_samples, self.detector.sample_rate))


class BeatCoverage(_ScoreMetric, _InSeconds):
    """Beats coverage: seconds with a beat in the sample, over those in the reference; 1 is the target, not the most.

    A mean of 1 may hide clips of 0.5 and 1.5, and a 2-second clip has two bins: never report it alone. The papers print
    it times 100, and remove noise from their samples first, which this does not.
    Source: Zhu et al., D2M-GAN (arXiv:2204.00604), CDCD (arXiv:2206.07771); github.com/L-YeZhu/Beats_Scores.

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 1 for the published scores.
    """

    title = "beat_coverage"
    score = staticmethod(beats.beat_coverage)
    higher_is_better = None


class BeatHit(_ScoreMetric, _InSeconds):
    """Beats hit: seconds with a beat in both, over those in the reference; higher is better.

    A click in every second scores 1 against anything. With window 3 it is LORIS's BHS.
    Source: Zhu et al., D2M-GAN (arXiv:2204.00604), CDCD (arXiv:2206.07771); github.com/L-YeZhu/Beats_Scores.

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 1 (CDCD) or 3 (LORIS) for the published scores.
    """

    title = "beat_hit"
    score = staticmethod(beats.beat_hit)


class BeatPrecision(_ScoreMetric, _InSeconds):
    """Seconds with a beat in both, over those in the sample: LORIS's beats coverage (BCS), higher is better.

    Source: Yu et al. 2023 (arXiv:2305.01319); github.com/OpenGVLab/LORIS, beats_scores.py.

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 3 for the published scores.
    """

    title = "beat_precision"
    score = staticmethod(beats.beat_precision)


class _Spread(_ScoreMetric):
    """Sample standard deviation of a score over the clips."""

    average = "sample standard deviation over clips"
    higher_is_better = False
    min_clips = 2

    def value(self, table: Table) -> Float[Tensor, ""]:
        """Sample standard deviation over clips."""
        return spread_over_clips(self.score(table))


class BeatPrecisionSpread(_Spread, BeatPrecision):
    """CSD: standard deviation over the clips of LORIS's beats coverage, lower is better.

    Source: Yu et al. 2023 (arXiv:2305.01319); github.com/OpenGVLab/LORIS, beats_scores.py (`ddof=1`).

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 3 for the published scores.
    """

    title = "beat_precision_spread"


class BeatHitSpread(_Spread, BeatHit):
    """HSD: standard deviation over the clips of beats hit, lower is better.

    Source: Yu et al. 2023 (arXiv:2305.01319); github.com/OpenGVLab/LORIS, beats_scores.py (`ddof=1`).

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 3 for the published scores.
    """

    title = "beat_hit_spread"


class BeatF1(_InSeconds):
    """F1 of LORIS: harmonic mean of the *mean* precision and the *mean* hit over the clips, higher is better.

    Source: Yu et al. 2023 (arXiv:2305.01319); github.com/OpenGVLab/LORIS, beats_scores.py.

    Args:
        detector: Finds the beats of both; `OnsetPeaks` with window 3 for the published scores.
    """

    title = "beat_f1"
    average = "harmonic mean of mean precision and mean hit"

    def value(self, table: Table) -> Float[Tensor, ""]:
        """Harmonic mean of the two means, in [0, 1]."""
        precision, hit = (mean_over_clips(score(table)) for score in (beats.beat_precision, beats.beat_hit))
        return beats.harmonic_mean(precision, hit)


class BeatFMeasure(_ScoreMetric):
    """Mean over clips of the F-measure of beats within a tolerance, each matched once; higher is better.

    It tells what bins of a second cannot: whether a beat is on the beat. The first 5 seconds, which contests in beat
    tracking leave out, count here, because the clips are hardly longer.
    Source: Dixon 2007; `mir_eval.beat.f_measure` (Raffel et al. 2014) of each clip.

    Args:
        detector: Finds the beats of both.
        tolerance: Largest distance of matching beats in seconds, above 0; 0.07 is usual for beats, 0.05 for onsets.

    Raises:
        ValueError: If `tolerance` is not above 0.
    """

    title = "beat_f1"
    score = staticmethod(beats.beat_f_measure)

    def __init__(
        self,
        detector: AudioBeats,
        tolerance: float = 0.07,
    ) -> None:
        super().__init__(detector)
        if tolerance <= 0:
            raise ValueError(f"tolerance: found {tolerance}, expected seconds above 0; 0.07 is usual for beats")
        self.tolerance = tolerance

    def tolerance_name(self) -> str:
        """Milliseconds."""
        return f"{1000 * self.tolerance:g}ms"

    def match(self, times: Times, reference: Times, num_samples: int) -> tuple[int, int, int]:
        """Beats of the sample, beats of the reference, pairs within the tolerance."""
        return beats.matches_within(times, reference, self.tolerance)

    def protocol(self) -> dict[str, str | int | float]:
        """Detector, tolerance, trimming, average, number of clips, clips without a beat, spread over clips."""
        return super().protocol() | {"trimmed": "nothing, the first 5 s count"}
