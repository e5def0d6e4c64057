"""Loss terms as pure functions, cited by equation."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    positive: Float[Tensor, " b"],
    negatives: Float[Tensor, "b n"],
    temperature: float = 1.0,
) -> Float[Tensor, " b"]:
    """InfoNCE from scores where less is better: -log softmax(-[positive, negatives] / temperature)[0].

    Oord et al. 2018, Eq. 4, arXiv 1807.03748, with log f = -score; the objective that CDCD sets out from (arXiv
    2206.07771). At least 0, and log(n + 1) when all scores are equal. With negatives drawn independently from the
    marginal, log(n + 1) minus its mean bounds the mutual information from below; other negatives make it a training
    signal only.

    Args:
        positive: Score of the true pair, nats.
        negatives: Scores of the false pairs, nats.
        temperature: Scale of the scores, above 0.
    """
    scores = torch.cat([positive[:, None], negatives], dim=1)
    return -F.log_softmax(-scores / temperature, dim=1)[:, 0]


def symmetric_info_nce(
    logits: Float[Tensor, "b texts"],
    logits_across: Float[Tensor, "b images"],
    offset: int,
    is_same: Bool[Tensor, "b texts"],
) -> Float[Tensor, " b"]:
    """CLIP's loss of pairs: each image picks its text and each text its image, half each (arXiv 2103.00020, Fig. 3).

    Args:
        logits: Scaled similarities of this process's b images to all texts; first to those of the images, in their
            order, then to texts that have no image here.
        logits_across: Scaled similarities of its b texts to all images.
        offset: Column of its first own pair.
        is_same: True where the texts are the same: such pairs are no negatives, and are left out.
    """
    rows = torch.arange(len(logits), device=logits.device)
    ignored = is_same.clone()
    ignored[rows, rows + offset] = False
    parts = (part.float().masked_fill(ignored[:, : part.shape[1]], -torch.inf) for part in (logits, logits_across))
    first, second = (F.cross_entropy(part, rows + offset, reduction="none") for part in parts)
    return (first + second) / 2


def linear_contrast(negatives: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Minus the mean loss of the negatives: the form of CDCD's algorithm and of its public code.

    It stands for the logarithm of a density ratio (arXiv 2206.07771) by a heuristic linearisation, is unbounded below
    and bounds no mutual information.

    Args:
        negatives: Losses of the false pairs, nats.
    """
    return -negatives.mean(dim=1)


def mean_where(value: Shaped[Tensor, " b"], keep: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean over the samples that count; 0 when there are none."""
    return (value * keep).sum() / keep.sum().clamp(min=1)


def spectral_distance(
    estimate: Float[Tensor, "b s"],
    target: Float[Tensor, "b s"],
    windows: Sequence[int] = (2048, 1024, 512, 256, 128, 64),
) -> Float[Tensor, ""]:
    """Multi-scale spectral distance of audio: mean |S - S'| + mean |log S - log S'|, summed over the scales.

    Engel et al. 2020, arXiv 2001.04643 (multi-scale spectral loss, here of means over bins and frames, natural
    logarithm); S are magnitudes of Hann windows that overlap by three quarters, those below 1e-5 counted as 1e-5: so
    silence has a distance as well. Windows longer than the clip are left out.

    Args:
        estimate: Samples of the estimate.
        target: Samples of the truth.
        windows: Lengths of the windows, samples.

    Raises:
        ValueError: if the clip is shorter than every window.
    """
    fitting = [window for window in windows if window <= target.shape[1]]
    if not fitting:
        raise ValueError(f"audio has {target.shape[1]} samples: expected at least {min(windows)}, the shortest window")
    total = torch.zeros((), device=target.device)
    for window in fitting:
        hann = torch.hann_window(window, device=target.device)
        first, second = (
            torch.stft(audio.float(), window, window // 4, window=hann, center=False, return_complex=True).abs()
            for audio in (estimate, target)
        )
        logs = (first.clamp(min=1e-5).log() - second.clamp(min=1e-5).log()).abs().mean()
        total = total + (first - second).abs().mean() + logs
    return total


def perplexity(tokens: Int[Tensor, "b *grid"], num_codes: int) -> Float[Tensor, ""]:
    """Perplexity of a codebook: exp of the entropy of the use of its codes, 1 to `num_codes`.

    van den Oord et al. 2017, arXiv 1711.00937; the number of codes that, used evenly, would tell as much.

    Args:
        tokens: Tokens.
        num_codes: Size of the codebook.
    """
    uses = torch.bincount(tokens.flatten(), minlength=num_codes).float()
    return torch.special.entr(uses / uses.sum()).sum().exp()
