"""Pictures that belong together, one of them perhaps a map of classes: the data of image translation."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeGuard, get_args

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from mmdiffusion.data.base import Split
from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import DamagedError, FileDataModule, Files, Sample
from mmdiffusion.data.folders import folder_names
from mmdiffusion.data.layout import check_share, existing_folder, say_counts
from mmdiffusion.data.pair_layouts import PairLayout, Pairs
from mmdiffusion.data.strings import Strings
from mmdiffusion.types import Batch, DataSpec, ImageSpec

_READ: dict[str | None, tuple[Split, ...]] = {
    TrainerFn.VALIDATING: ("val",),
    TrainerFn.TESTING: ("test",),
    TrainerFn.PREDICTING: ("test",),
}
"""Splits of commands that read one of them."""


class PairedPictures(Files):
    """A split of pairs.

    Args:
        pairs: Their files.
        layout: Reads them.
        crop: How they become squares, both alike.
        max_bad_fraction: Share of samples that may be damaged, in [0, 1).
        seed: Seed of random crops.
    """

    def __init__(self, pairs: Pairs, layout: PairLayout, crop: Crop, max_bad_fraction: float, seed: int) -> None:
        super().__init__(len(pairs.images), max_bad_fraction, seed)
        self.pairs, self.layout, self.crop = pairs, layout, crop

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One pair; see `Files`."""
        image, second = self.layout.read(Path(self.pairs.images[row]), Path(self.pairs.seconds[row]))
        window = self.crop.window(image.shape[1], image.shape[2], generator)
        # not bytes, which would become pixels in [-1, 1]
        shown = window(second) if second.ndim == 3 else window.classes(second).short()
        return {"image": window(image), self.layout.entry: shown}

    def check(self) -> None:
        """Check all pairs by the headers of their files.

        Raises:
            ValueError: if more than `max_bad_fraction` of them do not fit, naming files, sizes and what to do.
        """
        problems = []
        for image, second in zip(self.pairs.images, self.pairs.seconds, strict=True):
            try:
                self.layout.check(Path(image), Path(second))
            except DamagedError as error:
                problems.append(str(error))
        check_share(problems, len(self), self.max_bad_fraction, "resize or remove them")


class ImagePairs(FileDataModule):
    """Pairs of pictures, or of a picture and its map of classes, as users of pix2pix, pix2pixHD and SPADE have them.

    A batch holds `image` (b 3 size size, in [-1, 1]), `index` (b), and by the layout `paired` (b 3 size size, in
    [-1, 1]) or `segmentation` (b size size, 0 the background). Both are cut and mirrored alike; maps are resized by the
    nearest pixel. Where there is no `val`, validation is the test split, and the other way round.

    Args:
        root: Folder as it was unpacked.
        size: Pixels a side.
        layout: Where pairs lie in it: `Sheets`, `TwoFolders`, `ClassMaps` or `Cityscapes`.
        batch_size: Pairs per training step and process, at least 1.
        eval_batch_size: Pairs per batch in validation, test and prediction, at least 1.
        held_out: Training pairs, the last by name, that validation shows and training does not; test shows them too
            where nothing else is there.
        random_crop: Random crops in training; otherwise the centre.
        flip: Mirror half of the training pairs.
        squash: Resize to a square whatever the shape, instead of a cut.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of pairs that may be damaged, in [0, 1).
        seed: Seed of the order of the training pairs and of random crops.
    """

    def __init__(
        self,
        root: str,
        size: int,
        layout: PairLayout,
        batch_size: int = 16,
        eval_batch_size: int = 50,
        held_out: int = 0,
        random_crop: bool = False,
        flip: bool = False,
        squash: bool = False,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, max_bad_fraction, seed)
        if held_out < 0:
            raise ValueError(f"held_out is {held_out}: expected at least 0")
        self.train_crop, self.crop = Crop(size, random_crop, flip, squash), Crop(size, squash=squash)
        self.layout, self.held_out = layout, held_out
        self.root = existing_folder(root, layout.what)
        self.places = [self.root, self.root / self.root.name]

    @property
    def spec(self) -> DataSpec:
        """Colour pictures, and what belongs to them."""
        size = self.crop.size
        return {"image": ImageSpec(3, size), self.layout.entry: self.layout.spec(size)}

    def files(self, name: Split) -> PairedPictures:
        """Index one split."""
        is_ours = name == "train" or (name == "val" and self.held_out > 0)
        found = self._training(name == "val") if is_ours else self._published(name)
        where, size, pairs = f"{type(self.layout).__name__} at {self.root}", len(found.images), f"{name} pairs"
        if name in self.layout.published:
            say_counts(where, {pairs: size}, {pairs: self.layout.published[name]})
        else:
            rank_zero_info(f"{where}: {size:,} {pairs}")
        crop = self.train_crop if name == "train" else self.crop
        return PairedPictures(found, self.layout, crop, self.max_bad_fraction, self.seed)

    def prepare_data(self) -> None:
        """Check that a training has a batch, and that the two of each pair are of one size; once a node.

        A training is checked with its test split: samples are drawn for it on the way.

        Raises:
            ValueError: if the training split does not fill one batch, or pairs do not fit.
        """
        super().prepare_data()
        start, total = time.perf_counter(), 0
        for name in _READ.get(self.trainer.state.fn if self.trainer else None, get_args(Split)):
            split = self.split(name)
            assert isinstance(split, PairedPictures)
            split.check()
            total += len(split)
        rank_zero_info(f"sizes of {total:,} pairs checked in {time.perf_counter() - start:.1f} s")

    def _fetch(self, split: Dataset, rows: Sequence[int], entries: Collection[str] | None) -> Batch:
        return numbered(super()._fetch(split, rows, entries))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels become floats, and classes int64, where the batch is needed."""
        return numbered(super().on_after_batch_transfer(batch, dataloader_idx))

    def _training(self, is_held_out: bool) -> Pairs:
        pairs = self.layout.pairs(self.places, "train")
        if pairs is None:
            found = ", ".join(folder_names(self.root)[:6]) or "no folders"
            raise ValueError(f"root is {self.root}, it has {found}: expected {self.layout.what}")
        size = len(pairs.images)
        end = size - self.held_out
        if end < 1:
            raise ValueError(f"{self.root} has {size} training pairs: expected more than held_out, {self.held_out}")
        rows = range(end, size) if is_held_out else range(end)
        return Pairs(*(Strings.of(files[row] for row in rows) for files in pairs))

    def _published(self, name: Split) -> Pairs:
        other = "val" if name == "test" else "test"
        for split in (name, other):
            if (pairs := self.layout.pairs(self.places, split)) is not None:
                return pairs
        if self.held_out:
            return self._training(True)
        raise ValueError(
            f"root is {self.root}, it has neither val nor test: expected {self.layout.what}; or take held_out above 0"
        )


def numbered(batch: Batch) -> Batch:
    """Maps of classes as the methods take them: int64, from the two bytes in which they crossed from the workers.

    Args:
        batch: A batch as it was collated.
    """
    return {name: values.long() if _is_short(values) else values for name, values in batch.items()}


def _is_short(values: Tensor | list[str]) -> TypeGuard[Tensor]:
    return isinstance(values, Tensor) and values.dtype == torch.int16
