"""Digits: scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels, 17 grey levels. No download."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.data.representations import NUM_FEATURES, Representations
from mmdiffusion.masks import hide_share
from mmdiffusion.seeding import SampleNoise, stream_seed
from mmdiffusion.types import Batch, DataSpec, FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, TextSpec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_LEVELS = 17
_SPLIT_SEED = 0
_NUM_TEST, _NUM_VAL = 360, 180
_NUM_PATCHES = 16


class Digits(DataModule):
    """Handwritten digits (Alpaydin & Kaynak 1998, UCI; as shipped with scikit-learn).

    A fixed stratified split: 1,257 training, 180 validation and 360 test digits. A batch holds `image` (b 1 s s, in
    [-1, 1]), `label` (b), `caption` ("a handwritten seven") and `index` (b); on demand also `masked` (b 2 s s), the
    image with a share of its patches hidden and where it can be seen, `feature` (b d) and `feature_map` (b d s/2 s/2),
    what a small classifier trained on the training split makes of it.

    Args:
        batch_size: Samples per training step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        size: Pixels a side: 8, or 16 for every pixel doubled.
        mask_share: Share of the patches that `masked` hides, 16 of them to an image; `None` for no such entry. Which
            ones is a function of (split, index): in training a method may draw masks of its own.
        num_features: Principal components of `feature`, up to 64; 0 for no such entry.
        num_maps: Principal components of `feature_map`, up to 64; 0 for no such entry.
        seed: Seed of the order of the training samples.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        size: int = 8,
        mask_share: float | None = None,
        num_features: int = 0,
        num_maps: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if size not in (8, 16):
            raise ValueError(f"size is {size}: expected 8 or 16")
        if mask_share is not None and not 0 <= mask_share <= 1:
            raise ValueError(f"mask_share is {mask_share}: expected 0 to 1")
        for name, count in (("num_features", num_features), ("num_maps", num_maps)):
            if not 0 <= count <= NUM_FEATURES:
                raise ValueError(f"{name} is {count}: expected 0 to {NUM_FEATURES}")
        self.size, self.mask_share = size, mask_share
        self.num_features, self.num_maps = num_features, num_maps

    @property
    def spec(self) -> DataSpec:
        """Grey images with 17 levels, ten classes, captions of three words."""
        image = ImageSpec(channels=1, size=self.size, num_levels=NUM_LEVELS)
        caption = TextSpec(max_words=3, vocabulary=("a", "handwritten", *NAMES))
        spec: DataSpec = {"image": image, "label": LabelSpec(len(NAMES), NAMES), "caption": caption}
        if self.mask_share is not None:
            spec["masked"] = MaskedSpec(1, self.size)
        if self.num_features:
            spec["feature"] = FeatureSpec((self.num_features,))
        if self.num_maps:
            spec["feature_map"] = FeatureSpec((self.num_maps, self.size // 2, self.size // 2))
        return spec

    def split(self, name: Split) -> Arrays:
        """One split; every process builds the same."""
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict[Split, Arrays]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

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
        network = (
            Representations(image[train], label[train], len(NAMES)) if self.num_features or self.num_maps else None
        )
        return {name: Arrays(self._columns(name, image[r], label[r], network)) for name, r in rows.items()}

    def _columns(self, split: Split, image: Tensor, label: Tensor, network: Representations | None) -> Batch:
        columns: Batch = {"image": image, "label": label, "caption": [f"a handwritten {NAMES[int(c)]}" for c in label]}
        if self.mask_share is not None:
            order = SampleNoise(stream_seed(0, f"digits/masks/{split}", 0), range(len(image))).uniform((_NUM_PATCHES,))
            columns["masked"] = hide_share(image, self.size // 4, self.mask_share, order)
        if network is not None and self.num_features:
            columns["feature"] = network.vectors(image, self.num_features)
        if network is not None and self.num_maps:
            columns["feature_map"] = network.maps(image, self.num_maps)
        return columns
