"""Digits: scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels, 17 grey levels. No download."""

from functools import cached_property
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.types import Batch, DataSpec, ImageSpec, LabelSpec, TextSpec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_LEVELS = 17
_SPLIT_SEED = 0
_NUM_TEST, _NUM_VAL = 360, 180


class Digits(DataModule):
    """Handwritten digits (Alpaydin & Kaynak 1998, UCI; as shipped with scikit-learn).

    A fixed stratified split: 1,257 training, 180 validation and 360 test digits. A batch holds `image` (b 1 s s, in
    [-1, 1]), `label` (b), `caption` ("a handwritten seven") and `index` (b).

    Args:
        batch_size: Samples per training step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        size: Pixels a side: 8, or 16 for every pixel doubled.
        seed: Seed of the order of the training samples.
    """

    def __init__(self, batch_size: int = 128, eval_batch_size: int = 256, size: int = 8, seed: int = 0) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if size not in (8, 16):
            raise ValueError(f"size is {size}: expected 8 or 16")
        self.size = size

    @property
    def spec(self) -> DataSpec:
        """Grey images with 17 levels, ten classes, captions of three words."""
        image = ImageSpec(channels=1, size=self.size, num_levels=NUM_LEVELS)
        caption = TextSpec(max_words=3, vocabulary=("a", "handwritten", *NAMES))
        return {"image": image, "label": LabelSpec(len(NAMES), NAMES), "caption": caption}

    def split(self, name: Split) -> Arrays:
        """One split; every process builds the same."""
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict[Split, Arrays]:
        pixels, labels = load_digits(return_X_y=True)
        rest, test = train_test_split(
            range(len(labels)), test_size=_NUM_TEST, stratify=labels, random_state=_SPLIT_SEED
        )
        train, val = train_test_split(rest, test_size=_NUM_VAL, stratify=labels[rest], random_state=_SPLIT_SEED)
        image = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / ((NUM_LEVELS - 1) / 2) - 1
        if self.size == 16:
            image = F.interpolate(image, scale_factor=2, mode="nearest")
        label = torch.from_numpy(labels).long()
        rows: dict[Split, Any] = {"train": train, "val": val, "test": test}
        return {name: Arrays(self._columns(image[chosen], label[chosen])) for name, chosen in rows.items()}

    @staticmethod
    def _columns(image: torch.Tensor, label: torch.Tensor) -> Batch:
        return {"image": image, "label": label, "caption": [f"a handwritten {NAMES[int(c)]}" for c in label]}
