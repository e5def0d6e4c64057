"""Real digits, one trained classifier, and a tiny extractor for the parity tests."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from mmdiffusion.metrics import FeatureExtractor, SmallClassifier
from mmdiffusion.metrics.features import as_stored


class Digits(NamedTuple):
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Projection(FeatureExtractor):
    """Fixed random features and logits of a flattened image, as seen after 8 bits."""

    def __init__(self, num_pixels: int, num_features: int = 6, num_classes: int = 5):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.name, self.num_features = "projection", num_features
        self.weight = torch.nn.Parameter(torch.randn(num_pixels, num_features, generator=generator) / 4)
        self.classes = torch.randn(num_features, num_classes, generator=generator)

    def features(self, images: Tensor) -> Tensor:
        return (as_stored(images).flatten(1) @ self.weight).tanh().detach()

    def logits(self, images: Tensor) -> Tensor:
        return self.features(images) @ self.classes

    def signature(self) -> str:
        return "random projection"


@pytest.fixture(scope="session")
def digits() -> Digits:
    pixels, target = (np.asarray(array) for array in load_digits(return_X_y=True))
    train, test = train_test_split(np.arange(1797), test_size=540, stratify=target, random_state=0)
    images = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(target)
    return Digits(images[train], labels[train], images[test], labels[test])


@pytest.fixture(scope="session")
def classifier(digits: Digits) -> SmallClassifier:
    extractor = SmallClassifier()
    extractor.fit(digits.train_images, digits.train_labels)
    return extractor


@pytest.fixture
def projection() -> Projection:
    return Projection(3 * 4 * 4)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
