"""A small classifier trained on the real training split: the feature extractor of the embedded data sets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.metrics.features import FeatureExtractor, as_stored, move

BATCH_SIZE = 64


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
        self.trunk, self.head = _build(channels, num_classes, num_features, seed)
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
        with torch.inference_mode(False), torch.enable_grad(), one_thread(), torch.autocast("cpu", enabled=False):
            self.trunk, self.head = _build(self.channels, self.num_classes, self.num_features, self.seed)
            network = nn.Sequential(self.trunk, self.head)
            _train(network, as_stored(images.cpu()).clone(), labels.cpu().long().clone(), self)
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


def _build(channels: int, num_classes: int, num_features: int, seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """Trunk (images to features) and head (features to logits) with weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators as well
        trunk = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, num_features),
            nn.ReLU(),
        )
        return trunk.float(), nn.Linear(num_features, num_classes).float()


def _train(
    network: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    settings: SmallClassifier,
) -> None:
    """Cross-entropy on randomly shifted batches with AdamW and a one-cycle rate."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=settings.num_steps)
    for _ in range(settings.num_steps):
        batch = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
        loss = F.cross_entropy(network(_shifted(images[batch], generator)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _shifted(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Shift every image by at most one pixel each way; the border is repeated."""
    height, width = images.shape[-2:]
    windows = F.pad(images, (1, 1, 1, 1), mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(3, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, down, right]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch's CPU kernels on one thread: sums over several threads differ in the last bit."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
