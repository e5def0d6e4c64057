"""Reading a cache of `mmdiffusion prepare` against reading JPEG files, in images a second.

    python -m benchmarks.prepared [--images FOLDER] [--sizes 64 256] [--workers 2] [--rounds 5]

The peer is torchvision's `ImageFolder` with Pillow, the same resize and central crop, and a DataLoader with as many
workers; both are shuffled and come in batches of 64. The peer's workers make floats in [-1, 1]. From the cache come
bytes, which become floats on the accelerator, or, as the last column has it, on one thread of the training process.
They take turns in one process; ratios are medians over rounds of (cache / peer), with the smallest and the largest.
`FOLDER` has one folder of JPEG files a class, as ImageNet has; without it 512 pictures of 500 x 375 pixels are made up.

Where new memory is slow to get, as in many virtual machines, floats are limited by that:
`THP_MEM_ALLOC_ENABLE=1` lets PyTorch take it in large pages.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import write_jpeg
from torchvision.transforms import v2

from benchmarks.turns import seconds_in_turns
from mmdiffusion.data import Cache, Prepared
from mmdiffusion.data.base import Split
from mmdiffusion.data.encoding import Processes, encode_split
from mmdiffusion.data.files import FileDataModule, Files, Sample
from mmdiffusion.types import DataSpec, ImageSpec, LabelSpec

BATCH, NUM_IMAGES = 64, 512


class Pictures(Files):
    """The images of an `ImageFolder`, in bytes.

    Args:
        folder: The images.
        size: Pixels a side.
    """

    def __init__(self, folder: ImageFolder, size: int) -> None:
        super().__init__(len(folder), 0.0, 0)
        self.folder, self.shape = folder, v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One image; see `Files`."""
        picture, label = self.folder[row]
        return {"image": self.shape(picture), "label": label}


class PictureData(FileDataModule):
    """An `ImageFolder` as a data set; all splits are the same.

    Args:
        path: Its folder.
        size: Pixels a side.
        num_workers: Processes that read.
    """

    def __init__(self, path: Path, size: int, num_workers: int) -> None:
        super().__init__(BATCH, BATCH, num_workers, 0.0, 0)
        self.folder, self.size = ImageFolder(str(path)), size

    @property
    def spec(self) -> DataSpec:
        """Images and classes."""
        return {"image": ImageSpec(3, self.size), "label": LabelSpec(len(self.folder.classes))}

    def files(self, name: Split) -> Files:
        """All images; see `FileDataModule`."""
        return Pictures(self.folder, self.size)


def make_pictures(path: Path) -> None:
    """Write smooth random pictures with some grain, about as large on disk as photographs."""
    (path / "made-up").mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for number in range(NUM_IMAGES):
        coarse = torch.rand(1, 3, 24, 32, generator=draw)
        image = F.interpolate(coarse, (375, 500), mode="bicubic") + 0.04 * torch.randn(1, 3, 375, 500, generator=draw)
        write_jpeg((image[0] * 255).clamp(0, 255).to(torch.uint8), str(path / "made-up" / f"{number}.jpg"), quality=90)


def peer(path: Path, size: int, num_workers: int) -> Callable[[], int]:
    """An epoch of torchvision's own reading."""
    steps = [v2.Resize(size), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    folder = ImageFolder(str(path), v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.5] * 3)]))
    workers: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    loader = DataLoader(folder, BATCH, shuffle=True, drop_last=True, **workers)
    return lambda: count(image for image, _ in loader)


def cached(path: Path, size: int, num_workers: int, folder: Path) -> dict[str, Callable[[], int]]:
    """Epochs of the same images from a cache, which is written first: in bytes, and as floats."""
    data, cache = PictureData(path, size, num_workers), Cache(str(folder))
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        encode_split(data, split, cache, cache.recipe([], []), Processes(), lambda _: None)
    prepared = Prepared(data, cache)
    loader = prepared.train_dataloader()
    return {
        "bytes": lambda: count(batch["image"] for batch in loader),
        "floats": lambda: count(prepared.on_after_batch_transfer(batch, 0)["image"] for batch in loader),
    }


def count(images: Iterable[Any]) -> int:
    """Read all batches and count their images."""
    return sum(len(batch) for batch in images)


def main() -> None:
    """Time both at every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files, one folder a class")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], help="pixels a side")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, after one for warming up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("pixels", "peer, images/s", "bytes, images/s", "ratio", "floats, images/s", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        images = options.images or Path(folder) / "images"
        if options.images is None:
            make_pictures(images)
        for size in options.sizes:
            runs = {"peer": peer(images, size, options.workers)}
            runs |= cached(images, size, options.workers, Path(folder) / f"cache-{size}")
            number = runs["peer"]()
            seconds = seconds_in_turns(runs, options.rounds)
            row = [f"{number / statistics.median(seconds['peer']):.0f}"]
            for name in ("bytes", "floats"):
                ratios = [theirs / ours for theirs, ours in zip(seconds["peer"], seconds[name], strict=True)]
                spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
                row += [f"{number / statistics.median(seconds[name]):.0f}", spread]
            table.add_row(str(size), *row)
    Console().print(f"{options.workers} workers, {options.rounds} rounds in turn", table)


if __name__ == "__main__":
    main()
