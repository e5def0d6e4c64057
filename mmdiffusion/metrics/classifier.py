"""A small classifier trained on the real training split: the feature extractor of the embedded data sets."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmdiffusion.metrics.features import FeatureExtractor, as_stored, move
from mmdiffusion.nn.small_classifier import build_classifier, train_classifier


class SmallClassifier(FeatureExtractor):
    """A three-layer convolutional classifier, trained in seconds and the same bit for bit every time.

    Its hidden layer gives the features of `fid[digits-cnn]`, its output the classes of `is[digits-cnn]`. Such figures
    compare runs on the same data with each other; they are not comparable with a published FID.

    Args:
        name: Short name that appears in the metric; say which data it was trained on.
        channels: Channels of an image, 1 for grey.
        num_classes: Number of classes; labels are 0 .. num_classes - 1.
        num_features: Width of the hidden layer that serves as feature vector.
        num_steps: Optimiser steps of `fit`, each on 64 images.
        seed: Seed of the initial weights, the batches and the shifts; the global generator is left alone.
    """

    def __init__(
        self,
        name: str = "digits-cnn",
        channels: int = 1,
        num_classes: int = 10,
        num_features: int = 64,
        num_steps: int = 400,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.channels, self.num_classes, self.num_features = name, channels, num_classes, num_features
        self.num_steps, self.seed = num_steps, seed
        self.trunk, self.head = build_classifier(channels, num_classes, num_features, seed)
        self.num_fitted = 0
        self.requires_grad_(False).eval()

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Hidden activations (b num_features), at least 0.

        Raises:
            ValueError: Before `fit`, or if the number of channels differs.
        """
        self._check_fitted()
        self._check_channels(images)
        move(self, images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return torch.cat([self.trunk(part) for part in as_stored(images).split(512)])

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Unnormalised class log-probabilities (b num_classes); errors as in `features`."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.head(self.features(images))

    def signature(self) -> str:
        """Name, size, training length and seed."""
        return (
            f"{self.name}, {self.num_features} features, 8-bit input, no resize, "
            f"{self.num_steps} steps on {self.num_fitted} images, seed {self.seed}"
        )

    def fit(self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> None:
        """Train from the seeded initial weights, on the CPU and on one thread so that the machine is no hidden input.

        Args:
            images: (b c h w) real training images in [-1, 1].
            labels: (b,) their classes in 0 .. num_classes - 1.

        Raises:
            ValueError: If there is no image, or channels or labels do not fit this classifier.
        """
        self._check_channels(images)
        self._check_labels(labels)
        with torch.inference_mode(False):
            self.trunk, self.head = build_classifier(self.channels, self.num_classes, self.num_features, self.seed)
            network = nn.Sequential(self.trunk, self.head)
            train_classifier(network, as_stored(images.cpu()), labels.cpu().long(), self.num_steps, self.seed)
        self.num_fitted = len(images)
        self.requires_grad_(False).eval()

    def _check_fitted(self) -> None:
        if self.num_fitted == 0:
            raise ValueError(
                f"extractor {self.name!r}: found untrained weights, expected trained ones; "
                "call fit(images, labels) with the real training split first"
            )

    def _check_channels(self, images: Float[Tensor, "b c h w"]) -> None:
        if images.shape[1] != self.channels:
            raise ValueError(
                f"channels: found images with {images.shape[1]}, expected {self.channels}; "
                f"set channels={images.shape[1]} on extractor {self.name!r}"
            )

    def _check_labels(self, labels: Int[Tensor, " b"]) -> None:
        if len(labels) == 0:
            raise ValueError(
                f"labels: found 0 training images for extractor {self.name!r}, expected at least 1; check the split"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"num_classes: found labels {low} to {high}, expected 0 to {self.num_classes - 1}; "
                f"set num_classes={high + 1} on extractor {self.name!r}"
            )
