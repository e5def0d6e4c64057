"""Inception Score, the same for any number of processes."""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.features import FeatureExtractor


def inception_score(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """exp(E_x KL(p(y|x) || p(y))) of one split, in float64.

    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4.

    Args:
        logits: (b k) unnormalised class log-probabilities.

    Returns:
        Scalar in [1, k].
    """
    log_p = logits.double().log_softmax(dim=1)
    log_marginal = log_p.logsumexp(dim=0) - np.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()


def canonical_order(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Rows sorted lexicographically: the same table whatever order, batches or processes they came in."""
    rows, counts = torch.unique(logits, dim=0, return_counts=True)
    return rows.repeat_interleave(counts, dim=0)


class InceptionScore(SampleMetric):
    """Inception Score over splits, higher is better.

    Rows of logits are sorted and then shuffled by `seed`, so order, batch size and number of processes do not matter.
    The formula, the chunk borders and the shuffle are torch-fidelity's; only the sorting before it is not. Memory grows
    by one row of logits a sample.
    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4; limits: Barratt and Sharma 2018 (arXiv:1801.01973).

    Args:
        extractor: Maps images to class logits; its weights stay out of this metric's `state_dict`.
        num_splits: Number of equal parts the score is averaged over, at least 1; published figures use 10.
        seed: Seed of the shuffle before splitting; torch-fidelity uses 2020.

    Raises:
        ValueError: If `num_splits` is below 1.
    """

    inputs = ("image",)
    fit_inputs = ("image", "label")
    higher_is_better = True
    extractor: FeatureExtractor
    count: Tensor
    rows: list[Tensor]

    def __init__(
        self,
        extractor: FeatureExtractor,
        num_splits: int = 10,
        seed: int = 2020,
    ) -> None:
        super().__init__()
        if num_splits < 1:
            raise ValueError(f"num_splits: found {num_splits}, expected at least 1; published figures use 10")
        object.__setattr__(self, "extractor", extractor)  # past nn.Module: no sub-module, so no weights in checkpoints
        self.num_splits, self.seed = num_splits, seed
        self.spread = 0.0
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", [], dist_reduce_fx="cat")  # flat, as torchmetrics gathers an empty process as (0,)

    def name(self) -> str:
        """`is[...]` with the extractor's name."""
        return f"is[{self.extractor.name}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Extractor, count, splits, seed, and the standard deviation over the splits of the last value."""
        return {
            "extractor": self.extractor.signature(),
            "num_samples": self.num_samples,
            "num_splits": self.num_splits,
            "seed": self.seed,
            "spread": self.spread,
        }

    def fit(self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> None:
        """Train the extractor on the real training split, (b c h w) in [-1, 1] with classes (b,)."""
        self.extractor.fit(images, labels)

    def update(self, image: Float[Tensor, "b c h w"]) -> None:
        """Add samples (b c h w) in [-1, 1]."""
        logits = self.extractor.logits(image).float().to(self.count.device)
        self.count += len(logits)
        self.rows.append(logits.flatten())

    def compute(self) -> Float[Tensor, ""]:
        """Mean score over the splits and all processes, a float64 scalar in [1, k].

        Raises:
            ValueError: If there are fewer samples than splits altogether.
        """
        self.num_samples = int(self.count)
        if self.num_samples < self.num_splits:
            raise ValueError(
                f"{self.name()}: found {self.num_samples} samples for num_splits={self.num_splits}, expected at least "
                "one a split; draw more samples or lower num_splits"
            )
        logits = canonical_order(dim_zero_cat(self.rows).view(self.num_samples, -1))
        scores = torch.stack([inception_score(part) for part in self._splits(logits)])
        self.spread = float(scores.std(correction=0))
        return scores.mean()

    def _splits(self, logits: Float[Tensor, "b k"]) -> list[Float[Tensor, "_ k"]]:
        """Shuffle by the seed and cut into `num_splits` parts, with torch-fidelity's generator and borders."""
        order = torch.from_numpy(np.random.RandomState(self.seed).permutation(len(logits))).to(logits.device)
        borders = [part * len(logits) // self.num_splits for part in range(self.num_splits + 1)]
        return [logits[order[start:stop]] for start, stop in pairwise(borders)]

    def reset(self) -> None:
        """Forget every sample; what `fit` learned stays."""
        super().reset()
        self.spread = 0.0
