"""Loss terms as pure functions, cited by equation."""

import torch
from jaxtyping import Float
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


def linear_contrast(negatives: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Minus the mean loss of the negatives: the form of CDCD's algorithm and of its public code.

    It stands for the logarithm of a density ratio (arXiv 2206.07771) by a heuristic linearisation, is unbounded below
    and bounds no mutual information.

    Args:
        negatives: Losses of the false pairs, nats.
    """
    return -negatives.mean(dim=1)
