"""Beat scores as pure functions: times in seconds, or counts of beats, to shares.

A table of counts has one row a clip: beats of the sample, beats of the reference, beats that match. Wherever a share
has the denominator 0, because a clip has no beat, it is 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def num_bins(num_samples: int, sample_rate: int) -> int:
    """Seconds of a clip, a last and incomplete one counted whole: 44,100 and 44,032 samples at 22,050 Hz both give 2.

    Source: github.com/L-YeZhu/Beats_Scores, `beat_detect`.
    """
    return -(-num_samples // sample_rate)


def occupied_bins(times: Float[Tensor, " _"], bins: int) -> Bool[Tensor, " bins"]:
    """The seconds of a clip in which there is a beat, however many.

    Source: github.com/L-YeZhu/Beats_Scores, `beat_detect`.

    Args:
        times: Beats in seconds, at least 0; one at the very end belongs to the last second.
        bins: Seconds of the clip, at least 1.

    Returns:
        (bins,) true where there is a beat.
    """
    occupied = torch.zeros(bins, dtype=torch.bool)
    occupied[times.long().clamp_max(bins - 1)] = True
    return occupied


def matches_in_bins(
    times: Float[Tensor, " _"],
    reference: Float[Tensor, " _"],
    bins: int,
) -> tuple[int, int, int]:
    """Counts of one clip when a beat stands for its whole second: B_g, B_t and B_a of CDCD.

    Source: Zhu et al., D2M-GAN (arXiv:2204.00604) and CDCD (arXiv:2206.07771), whose scores are those of
    github.com/L-YeZhu/Beats_Scores, `beat_scores`.

    Args:
        times: Beats of the sample in seconds.
        reference: Beats of the reference in seconds.
        bins: Seconds of both clips, at least 1.

    Returns:
        Seconds with a beat in the sample, in the reference, in both.
    """
    sample, target = occupied_bins(times, bins), occupied_bins(reference, bins)
    return int(sample.sum()), int(target.sum()), int((sample & target).sum())


def matches_within(
    times: Float[Tensor, " _"],
    reference: Float[Tensor, " _"],
    tolerance: float,
) -> tuple[int, int, int]:
    """Counts of one clip when a beat may be off by `tolerance` seconds and matches one beat at most.

    The largest possible number of pairs is counted, by `mir_eval.util.match_events`.
    Source: Dixon 2007, "Evaluation of the audio beat tracking system BeatRoot"; Raffel et al. 2014, mir_eval.

    Args:
        times: Beats of the sample in seconds.
        reference: Beats of the reference in seconds.
        tolerance: Largest distance of a pair in seconds, itself included.

    Returns:
        Beats of the sample, beats of the reference, pairs.
    """
    from mir_eval.util import match_events

    matched = len(match_events(reference.numpy(), times.numpy(), tolerance)) if len(times) and len(reference) else 0
    return len(times), len(reference), matched


def beat_coverage(counts: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
    """B_g / B_t of each clip: 1 is the target, more is possible (github.com/L-YeZhu/Beats_Scores)."""
    return _share(counts[:, 0], counts[:, 1])


def beat_hit(counts: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
    """B_a / B_t of each clip, in [0, 1]: recall (L-YeZhu/Beats_Scores); LORIS's beats hit, BHS (arXiv:2305.01319)."""
    return _share(counts[:, 2], counts[:, 1])


def beat_precision(counts: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
    """B_a / B_g of each clip, in [0, 1]: LORIS's beat coverage, BCS (arXiv:2305.01319; OpenGVLab/LORIS)."""
    return _share(counts[:, 2], counts[:, 0])


def beat_f_measure(counts: Float[Tensor, "b 3"]) -> Float[Tensor, " b"]:
    """Harmonic mean of precision and recall of each clip, in [0, 1] (`mir_eval.beat.f_measure`)."""
    return _share(2 * counts[:, 2], counts[:, 0] + counts[:, 1])


def beat_alignment(
    beats: Float[Tensor, " _"],
    targets: Float[Tensor, " _"],
    sigma: float,
) -> Float[Tensor, ""]:
    """Mean over `beats` of exp(-d^2 / (2 sigma^2)), d the distance in seconds to the nearest of `targets`.

    The Beat Alignment Score of Li et al. 2021 (arXiv:2101.08779; google-research/mint, tools/calculate_beat_scores.py):
    `beats` are those of the motion, `targets` those of the music, sigma is 3 frames of 1/60 s. Bailando (Siyao et al.
    2022, arXiv:2203.13055; utils/beat_align_score.py) exchanges the two. A target far from every beat costs nothing, so
    too many targets are no fault.

    Args:
        beats: Times in seconds over which the mean is taken.
        targets: Times in seconds among which the nearest is looked for.
        sigma: Width in seconds, above 0.

    Returns:
        Scalar in [0, 1]; 0 where either is empty.
    """
    if len(beats) == 0 or len(targets) == 0:
        return torch.zeros((), dtype=torch.float64)
    nearest = (beats.double()[:, None] - targets.double()).abs().amin(1)
    return torch.exp(-nearest.square() / (2 * sigma**2)).mean()


def harmonic_mean(first: Float[Tensor, ""], second: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """2 a b / (a + b), 0 where both are 0."""
    return _share(2 * first * second, first + second)


def _share(part: Float[Tensor, " *b"], whole: Float[Tensor, " *b"]) -> Float[Tensor, " *b"]:
    return torch.where(whole > 0, part / whole.where(whole > 0, 1.0), 0.0)
