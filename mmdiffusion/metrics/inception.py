"""Inception Score, the same for any number of processes."""

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
    The formula and the shuffle are torch-fidelity's; the sorting before it is not, nor that a last smaller part
    is left out. Memory grows
    by one row of logits a sample.
    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4; limits: Barratt and Sharma 2018 (arXiv:1801.01973).

    Args:
        extractor: Maps images to class logits; its weights stay out of this metric's `state_dict`.
        split_size: Samples of a part that is scored; the score is averaged over all whole parts. It is biased low, the
            more so the smaller the parts: compare at one size only. Published figures use 10 parts of 5,000.
        seed: Seed of the shuffle before splitting; torch-fidelity uses 2020.

    Raises:
        ValueError: If `split_size` is below 2.
    """

    inputs = ("image",)
    higher_is_better = True
    extractor: FeatureExtractor
    count: Tensor
    rows: list[Tensor]

    def __init__(
        self,
        extractor: FeatureExtractor,
        split_size: int = 5000,
        seed: int = 2020,
    ) -> None:
        super().__init__()
        if split_size < 2:
            raise ValueError(f"split_size is {split_size}: expected at least 2; published figures use 5000")
        object.__setattr__(self, "extractor", extractor)  # past nn.Module: no sub-module, so no weights in checkpoints
        self.fit_inputs = ("image", "label") if extractor.learns else ()
        self.split_size = self.min_samples = split_size
        self.seed = seed
        self.spread = 0.0
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", [], dist_reduce_fx="cat")  # flat, as torchmetrics gathers an empty process as (0,)

    def name(self) -> str:
        """`is[...]` with the extractor's name."""
        return f"is[{self.extractor.name}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Extractor, count, size of the splits, seed, and the standard deviation over the splits of the last value."""
        return {
            "extractor": self.extractor.signature(),
            "num_samples": self.num_samples,
            "split_size": self.split_size,
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
            ValueError: If there are fewer samples than one split altogether.
        """
        self.num_samples = int(self.count)
        if self.num_samples < self.split_size:
            raise ValueError(
                f"{self.name()}: found {self.num_samples} samples, split_size is {self.split_size}: expected at least "
                "one split; draw more samples or lower split_size"
            )
        logits = canonical_order(dim_zero_cat(self.rows).view(self.num_samples, -1))
        scores = torch.stack([inception_score(part) for part in self._splits(logits)])
        self.spread = float(scores.std(correction=0))
        return scores.mean()

    def _splits(self, logits: Float[Tensor, "b k"]) -> list[Float[Tensor, "_ k"]]:
        """Shuffle by the seed, with torch-fidelity's generator, and cut into whole parts."""
        order = torch.from_numpy(np.random.RandomState(self.seed).permutation(len(logits))).to(logits.device)
        num_splits = len(logits) // self.split_size
        return list(logits[order[: num_splits * self.split_size]].split(self.split_size))

    def reset(self) -> None:
        """Forget every sample; what `fit` learned stays."""
        super().reset()
        self.spread = 0.0
