"""Pictures read from disk, images a second: this package's loader against torchvision's ImageFolder by Pillow.

    python -m benchmarks.reading [--root FOLDER] [--sizes 64 256] [--workers 2] [--rounds 5] [--pictures 512]

Both read the same files in the same order, resize the shorter side by an antialiased bicubic step, keep the centre and
hand over float batches in [-1, 1]. The peer's transform is Resize(BICUBIC), CenterCrop, ToTensor, Normalize in the
workers; torchvision's own default, bilinear, is timed as well. Without --root, JPEGs of ImageNet's usual 500 x 375
pixels and some 100 kB are written: smooth pictures with noise. Variants take turns; a round is one pass over all files
with workers that are already running, so that starting them does not count. The ratio is the median over rounds.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from benchmarks.turns import seconds_in_turns
from mmdiffusion.data.base import whole_batch
from mmdiffusion.data.class_pictures import ClassPictures, Collected
from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import floats
from mmdiffusion.data.folders import file_names, folder_names

BATCH = 64
OURS, PEER, BILINEAR = "mmdiffusion", "ImageFolder (PIL), bicubic", "ImageFolder (PIL), bilinear"


def write_pictures(root: Path, count: int) -> None:
    """Write JPEGs as large as ImageNet's usual ones, in ten classes.

    Args:
        root: Folder.
        count: How many.
    """
    draw = np.random.default_rng(0)
    for number in range(count):
        width, height = (500, 375) if number % 4 else (375, 500)
        coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
        noisy = (smooth + draw.normal(0, 14, smooth.shape)).clip(0, 255).astype(np.uint8)
        folder = root / f"n{number % 10:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(folder / f"{number:05d}.JPEG", quality=90)


def our_loader(root: Path, size: int, workers: int) -> DataLoader:
    """The loader of ImageNet's pictures, over any class folders."""
    found = Collected(root)
    for label, name in enumerate(folder_names(root)):
        found.add(name, file_names(root / name), label)
    pictures = ClassPictures(found.pictures(), Crop(size), 0.0, 0)
    kept = {"num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(pictures, BATCH, collate_fn=whole_batch, **kept)  # pyright: ignore[reportArgumentType]


def peer_loader(root: Path, size: int, workers: int, interpolation: InterpolationMode) -> DataLoader:
    """What most projects have."""
    steps = [Resize(size, interpolation), CenterCrop(size), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]
    return DataLoader(
        ImageFolder(str(root), Compose(steps)), BATCH, num_workers=workers, persistent_workers=workers > 0
    )


def one_pass(batches: Iterable, finish: Callable) -> None:
    """Read everything once."""
    for batch in batches:
        finish(batch)


def variants(root: Path, size: int, workers: int) -> dict[str, Callable[[], None]]:
    """The loaders of one size as functions to call."""
    ours = our_loader(root, size, workers)
    peers = {
        PEER: peer_loader(root, size, workers, InterpolationMode.BICUBIC),
        BILINEAR: peer_loader(root, size, workers, InterpolationMode.BILINEAR),
    }
    check(ours, peers[PEER])
    runs: dict[str, Callable[[], None]] = {OURS: lambda: one_pass(ours, floats)}
    return runs | {name: lambda loader=loader: one_pass(loader, lambda batch: batch) for name, loader in peers.items()}


def check(ours: DataLoader, peer: DataLoader) -> None:
    """Both hand over the same pictures: at most two levels apart anywhere."""
    (first, _), second = next(iter(peer)), floats(next(iter(ours)))["image"]
    difference = (first - second).abs().max().item() * 127.5
    assert difference < 2.5, f"{difference:.1f} levels apart"


def main() -> None:
    """Time the loaders in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, help="class folders of pictures, such as ImageNet's val; default: made here"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], help="pixels a side")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--rounds", type=int, default=5, help="counted passes over all files")
    parser.add_argument("--pictures", type=int, default=512, help="pictures to make without --root")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = options.root or Path(made)
        if options.root is None:
            write_pictures(root, options.pictures)
        count = sum(len(file_names(root / name)) for name in folder_names(root))
        table = Table("size", "loader", "images/s, median", "min to max", "ours / this")
        for size in options.sizes:
            seconds = seconds_in_turns(variants(root, size, options.workers), options.rounds)
            for name, times in seconds.items():
                rates = [count / time for time in times]
                ratio = statistics.median(other / own for own, other in zip(seconds[OURS], times, strict=True))
                spread = f"{min(rates):.0f} to {max(rates):.0f}"
                table.add_row(str(size), name, f"{statistics.median(rates):.0f}", spread, f"{ratio:.2f}")
    Console().print(f"{count} pictures, batch {BATCH}, {options.workers} workers, {options.rounds} rounds", table)


if __name__ == "__main__":
    main()
