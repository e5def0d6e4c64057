"""What a small frozen classifier makes of digits: vectors and maps of features, by their principal components."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.nn.small_classifier import NUM_MAP_LAYERS, build_classifier, train_classifier

NUM_STEPS, NUM_FEATURES, SEED = 300, 64, 7
"""Of the classifier; its seed is none that a metric's has, so that no judge sees its own features."""


class Representations:
    """A classifier that is trained on the training split once, and principal components of its features there.

    Many features take capacity from the image when they are diffused with it; ReDi diffuses the leading principal
    components (Kouzelis et al. 2025, arXiv 2504.16064). Components keep their ratios: all of them together have a mean
    variance of 1 over the training split.

    Args:
        images: Training images in [-1, 1].
        labels: Their classes.
        num_classes: Number of classes.
    """

    def __init__(self, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], num_classes: int) -> None:
        self.trunk, head = build_classifier(images.shape[1], num_classes, NUM_FEATURES, SEED)
        train_classifier(torch.nn.Sequential(self.trunk, head), images, labels, NUM_STEPS, SEED)
        self.trunk.requires_grad_(False)
        self.images = images

    def vectors(self, images: Float[Tensor, "n c h w"], count: int) -> Float[Tensor, "n d"]:
        """Leading components of the hidden layer.

        Args:
            images: In [-1, 1].
            count: Components, 1 to 64.
        """
        basis = components(self.trunk(self.images), count)
        return basis.of(self.trunk(images))

    def maps(self, images: Float[Tensor, "n c h w"], count: int) -> Float[Tensor, "n d rows columns"]:
        """Leading components of the last map's channels, half the image's side.

        Args:
            images: In [-1, 1].
            count: Components, 1 to 64.
        """
        layers = self.trunk[:NUM_MAP_LAYERS]
        basis = components(layers(self.images).movedim(1, -1).flatten(0, 2), count)
        return basis.of(layers(images).movedim(1, -1)).movedim(-1, 1)


class Components:
    """Principal components.

    Args:
        mean: Mean of the features.
        directions: Orthonormal directions, one a column.
        scale: What they are divided by.
    """

    def __init__(self, mean: Float[Tensor, " f"], directions: Float[Tensor, "f d"], scale: float) -> None:
        self.mean, self.directions, self.scale = mean, directions, scale

    def of(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n d"]:
        """Components of features."""
        return ((features.double() - self.mean) @ self.directions / self.scale).float()


def components(features: Float[Tensor, "n f"], count: int) -> Components:
    """Leading principal components, with a mean variance of 1; each direction's largest entry is positive.

    Args:
        features: One row a sample.
        count: How many, 1 to the number of features.

    Raises:
        ValueError: if there are fewer features.
    """
    if not 1 <= count <= features.shape[1]:
        raise ValueError(f"components are {count}: expected 1 to {features.shape[1]}, the features there are")
    centred = features.double() - features.double().mean(0)
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    chosen = directions[:, -count:].flip(1)
    largest = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    return Components(features.double().mean(0), chosen * largest.sign(), float(variance[-count:].mean().sqrt()))
