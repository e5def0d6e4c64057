"""ImageNet (ILSVRC 2012): pictures of 1,000 classes."""

from collections.abc import Collection, Sequence
from functools import cached_property

from torch import Tensor
from torch.utils.data import Dataset

from mmdiffusion.data.base import Split, only
from mmdiffusion.data.class_pictures import ClassPictures, Pictures
from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import FileDataModule
from mmdiffusion.data.imagenet_archive import Archive
from mmdiffusion.data.synsets import NUM_CLASSES
from mmdiffusion.masks import hide_patches
from mmdiffusion.seeding import SampleNoise, stream_seed
from mmdiffusion.types import Batch, DataSpec, ImageSpec, LabelSpec, MaskedSpec

MASK_SIZE = 16
"""Pixels a side of a hidden patch (arXiv 2407.17571, Sec. 5)."""


class ImageNet(FileDataModule):
    """ImageNet's ILSVRC 2012: pictures of 1,000 classes.

    `root` holds `train/<wnid>/*.JPEG`, and `val` in class folders as well or flat; Kaggle's ILSVRC/Data/CLS-LOC below
    it is found. The numbers of the classes are those of all 1,000, whatever folders are there: they come from
    LOC_synset_mapping.txt (Kaggle) or the development kit's meta.mat in `root`, or from 1,000 class folders. A flat
    `val` needs LOC_val_solution.csv or the development kit. The published test pictures have no labels and are not
    read.

    A batch holds `image` (b 3 size size, in [-1, 1]), `label` (b, 0 to 999) and `index` (b); on demand also `masked`
    (b 4 size size), the image with patches of 16 x 16 pixels hidden and where it can be seen. The test split is the
    published validation set; the validation split is held out of the training pictures.

    Args:
        root: Folder as it was unpacked.
        size: Pixels a side.
        batch_size: Samples per training step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        classes: Wnids of the classes to keep, such as n01440764; their labels stay. Empty for all.
        per_class: Most training pictures of a class; `None` for all.
        held_out: Training pictures of each class, the last by name, that validation shows and training does not; with
            0 validation is the published validation set, as test.
        random_crop: Random crops in training; otherwise the centre.
        flip: Mirror half of the training pictures.
        num_masked: Patches that `masked` hides, at places that are a function of the index and may overlap;
            MT-Diffusion restores 5, 10, 15 and 20. In training a method may draw masks of its own. `None` for no such
            entry.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of samples that may be damaged, in [0, 1).
        seed: Seed of the order of the training samples and of random crops.
    """

    def __init__(
        self,
        root: str,
        size: int,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        classes: Sequence[str] = (),
        per_class: int | None = None,
        held_out: int = 1,
        random_crop: bool = False,
        flip: bool = False,
        num_masked: int | None = None,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        for name, value, least in (
            ("per_class", per_class, 1),
            ("held_out", held_out, 0),
            ("num_masked", num_masked, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}: expected at least {least}")
        self.train_crop, self.crop = Crop(size, random_crop, flip), Crop(size)
        if num_masked is not None and size < MASK_SIZE:
            raise ValueError(f"size is {size}: expected at least {MASK_SIZE}, the side of a hidden patch")
        self.per_class, self.held_out, self.num_masked = per_class, held_out, num_masked
        self.archive = Archive(root)
        self.kept = self.archive.kept(classes)

    @property
    def spec(self) -> DataSpec:
        """Colour pictures and the 1,000 classes, also where a part of them is kept."""
        size = self.crop.size
        spec: DataSpec = {"image": ImageSpec(3, size), "label": LabelSpec(NUM_CLASSES, self.archive.synsets.names)}
        return spec | ({} if self.num_masked is None else {"masked": MaskedSpec(3, size)})

    def files(self, name: Split) -> ClassPictures:
        """Index one split."""
        crop = self.train_crop if name == "train" else self.crop
        if name == "test" or (name == "val" and not self.held_out):
            pictures = self.archive.val(self.kept)
        else:
            pictures = self._train[name == "val"]
        return ClassPictures(pictures, crop, self.max_bad_fraction, self.seed)

    @cached_property
    def _train(self) -> tuple[Pictures, Pictures]:
        return self.archive.train(self.kept, self.held_out, self.per_class)

    def _fetch(self, split: Dataset, rows: Sequence[int], entries: Collection[str] | None) -> Batch:
        if entries is None or "masked" in entries:
            return only(self._with_masks(super()._fetch(split, rows, None)), entries)
        return super()._fetch(split, rows, entries)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels become floats, and masks are made, where the batch is needed."""
        return self._with_masks(super().on_after_batch_transfer(batch, dataloader_idx))

    def _with_masks(self, batch: Batch) -> Batch:
        if self.num_masked is None:
            return batch
        image, index = batch["image"], batch["index"]
        assert isinstance(image, Tensor)
        noise = SampleNoise(stream_seed(0, "imagenet/masks", 0), [int(i) for i in index], image.device)
        return batch | {"masked": hide_patches(image, MASK_SIZE, noise.uniform((self.num_masked, 2)))}
