"""Frechet distance between the features of samples and of real images."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.features import FeatureExtractor
from mmdiffusion.metrics.reference import Reference

SMALLEST_SHARE = 1e-12
"""Least eigenvalue, as a share of the largest, that is no rounding error: float64 resolves 2e-16 of the largest."""

BLOCK = 512
"""Columns of a product that are made at once."""


def frechet_distance(
    mean1: Float[Tensor, " d"],
    cov1: Float[Tensor, "d d"],
    mean2: Float[Tensor, " d"],
    cov2: Float[Tensor, "d d"],
) -> Float[Tensor, ""]:
    r"""Squared Frechet (2-Wasserstein) distance of two Gaussians, in float64.

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^{1/2}), where the last trace is that of `_overlap`.
    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), equation 6.

    Args:
        mean1: (d,) mean of the first Gaussian.
        cov1: (d d) symmetric, positive semi-definite.
        mean2: (d,) mean of the second Gaussian.
        cov2: (d d) symmetric, positive semi-definite.

    Returns:
        Scalar, at least 0 up to rounding, in squared units of the features.
    """
    mean1, cov1, mean2, cov2 = mean1.double(), cov1.double(), mean2.double(), cov2.double()
    return (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * _overlap(cov1, cov2)


def _overlap(cov1: Float64[Tensor, "d d"], cov2: Float64[Tensor, "d d"]) -> Float64[Tensor, ""]:
    """tr((C1 C2)^{1/2}), by symmetric matrices alone, so that nothing leaves the reals.

    With C1 = L L^T it is the sum of the roots of the eigenvalues of L^T C2 L. Where one of them is so small that its
    root would be one of a rounding error, as in covariances of fewer samples than features, it is the sum of the
    singular values of C1^{1/2} C2^{1/2}, which takes three times as long.
    """
    factor, failure = torch.linalg.cholesky_ex(cov1)
    if not failure:
        values = torch.linalg.eigvalsh(_congruent(factor, cov2))
        if values[0] > SMALLEST_SHARE * values[-1]:
            return values.sqrt().sum()
    return torch.linalg.svdvals(_square_root(cov1) @ _square_root(cov2)).sum()


def _congruent(factor: Float64[Tensor, "d d"], matrix: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    """Lower half of L^T C L, all that `eigvalsh` reads, without the products with the zeros of L: half the work."""
    made, blocks = torch.zeros_like(matrix), [slice(start, start + BLOCK) for start in range(0, len(matrix), BLOCK)]
    half = torch.cat([matrix[:, block.start :] @ factor[block.start :, block] for block in blocks], dim=1)
    for block in blocks:
        made[block, : block.stop] = factor[block.start :, block].T @ half[block.start :, : block.stop]
    return made


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Symmetric square root; eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


class FrechetDistance(SampleMetric):
    """Frechet distance (FID when the extractor is Inception-v3), lower is better.

    Keeps a count, a sum and a sum of outer products in float64 for samples and for references: memory does not grow
    with their number, and the value does not depend on batch size, order or number of processes. Covariances are
    unbiased (n - 1), as in torch-fidelity.
    Source: Heusel et al. 2017 (arXiv:1706.08500), equation 6.

    Args:
        extractor: Maps images to feature vectors; its weights stay out of this metric's `state_dict`.
        reference: Stored statistics to compare with; `None` compares with the split that is evaluated.
    """

    inputs = ("image",)
    uses_reference = True
    higher_is_better = False
    extractor: FeatureExtractor
    real_count: Tensor
    real_sum: Tensor
    real_outer: Tensor
    fake_count: Tensor
    fake_sum: Tensor
    fake_outer: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Reference | None = None,
    ) -> None:
        super().__init__()
        object.__setattr__(self, "extractor", extractor)  # past nn.Module: no sub-module, so no weights in checkpoints
        self.fit_inputs = ("image", "label") if extractor.learns else ()
        self.reference = reference
        self.num_references = 0
        width = extractor.num_features
        for kind in ("real", "fake"):
            self.add_state(f"{kind}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_sum", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")

    def name(self) -> str:
        """`fid[...]` with the extractor's name, and with what is compared where that is not the evaluated split."""
        compared = "" if self.reference is None else f", {self.reference.describe()}"
        return f"fid[{self.extractor.name}{compared}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Extractor, the two counts behind the last value, and where stored references are from."""
        stored = {} if self.reference is None else {"reference": f"{self.reference.describe()}, {self.reference.path}"}
        return {
            "extractor": self.extractor.signature(),
            "num_samples": self.num_samples,
            "num_references": self.num_references,
            "covariance": "unbiased",
        } | stored

    def fit(self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> None:
        """Train the extractor on the real training split, (b c h w) in [-1, 1] with classes (b,)."""
        self.extractor.fit(images, labels)

    def update(self, image: Float[Tensor, "b c h w"], real: bool = False) -> None:
        """Add samples, or references.

        Args:
            image: (b c h w) in [-1, 1].
            real: True for references, false for samples.
        """
        features = self.extractor.features(image).to(self.real_sum)
        if real:
            self.real_count += len(features)
            self.real_sum += features.sum(0)
            self.real_outer += features.T @ features
        else:
            self.fake_count += len(features)
            self.fake_sum += features.sum(0)
            self.fake_outer += features.T @ features

    def add_references(
        self,
        count: Int[Tensor, ""],
        total: Float[Tensor, " d"],
        outer: Float[Tensor, "d d"],
    ) -> None:
        """Add references whose features were summed before.

        Args:
            count: Number of references.
            total: Sum of their features.
            outer: Sum of the outer products of these.
        """
        self.real_count += count.to(self.real_count)
        self.real_sum += total.to(self.real_sum)
        self.real_outer += outer.to(self.real_outer)

    def compute(self) -> Float[Tensor, ""]:
        """Distance over all processes, a float64 scalar.

        Raises:
            ValueError: If there are fewer than 2 samples or fewer than 2 references altogether.
        """
        self.num_samples, self.num_references = int(self.fake_count), int(self.real_count)
        if min(self.num_samples, self.num_references) < 2:
            raise ValueError(
                f"{self.name()}: found {self.num_samples} samples and {self.num_references} references, "
                "expected at least 2 of each; a covariance needs them, so draw more samples"
            )
        real = _moments(self.real_count, self.real_sum, self.real_outer)
        fake = _moments(self.fake_count, self.fake_sum, self.fake_outer)
        return frechet_distance(*real, *fake)

    def reset_samples(self) -> None:
        """Forget the samples and keep the references."""
        real = {name: getattr(self, name) for name in ("real_count", "real_sum", "real_outer")}
        self.reset()
        for name, value in real.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Forget every sample and reference; what `fit` learned stays."""
        super().reset()
        self.num_references = 0


def _moments(
    count: Int[Tensor, ""],
    total: Float[Tensor, " d"],
    outer: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean (d,) and unbiased covariance (d d) from running sums."""
    mean = total / count
    return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
