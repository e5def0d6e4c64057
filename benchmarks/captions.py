"""What an index of a million captions costs: seconds, memory, and what each worker adds to it.

    python -m benchmarks.captions [--captions 1000000] [--workers 2] [--folder /tmp]

Captions are made up, 12 words each, and so are their files: a table, COCO's annotations with five captions a picture,
and shards. Each is indexed in a process of its own, from files that were just written. Memory is resident: what was
there before are the libraries, the index adds its peak while it is made and keeps the rest. Workers are forked, read
every caption in another order, and say what of their memory is theirs alone (unique set size, less that of a worker
that reads nothing); a list of strings is the control.
"""

import argparse
import csv
import gc
import io
import json
import multiprocessing
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from math import gcd
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from mmdiffusion.data.coco_index import Photographs
from mmdiffusion.data.pairs import Pairs
from mmdiffusion.data.picture_shards import PictureShards
from mmdiffusion.data.picture_table import PictureTable

_WORDS = (
    "a",
    "the",
    "small",
    "large",
    "red",
    "blue",
    "bird",
    "horse",
    "street",
    "table",
    "man",
    "sits",
    "under",
    "and",
)
_PER_PICTURE, _PER_SHARD = 5, 10_000


def captions(count: int) -> Iterator[str]:
    """Made-up captions of 12 words."""
    draws = random.Random(0)
    return (" ".join(draws.choices(_WORDS, k=12)) for _ in range(count))


def write_table(folder: Path, count: int) -> None:
    """A table of `count` pictures, of which only the first is there."""
    Image.new("RGB", (8, 8)).save(folder / "000000000.jpg")
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        writer.writerows((f"{row:09d}.jpg", caption) for row, caption in enumerate(captions(count)))


def write_annotations(folder: Path, count: int) -> None:
    """COCO's annotations, not grouped by picture, and empty files for the pictures."""
    (folder / "pictures").mkdir()
    images = [{"license": 1, "file_name": f"{row:012d}.jpg", "id": row} for row in range(count // _PER_PICTURE)]
    for image in images:
        (folder / "pictures" / str(image["file_name"])).touch()
    rows = enumerate(captions(count))
    records = [{"image_id": row % len(images), "id": row, "caption": caption} for row, caption in rows]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": records}))


def write_shards(folder: Path, count: int) -> None:
    """Shards of 10,000 samples, a tiny picture and a text each."""
    (folder / "shards").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    texts = captions(count)
    for first in range(0, count, _PER_SHARD):
        with tarfile.open(folder / "shards" / f"{first:09d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, caption in zip(range(first, min(first + _PER_SHARD, count)), texts, strict=False):
                for end, stored in (("jpg", buffer.getvalue()), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{row:09d}.{end}")
                    info.size = len(stored)
                    archive.addfile(info, io.BytesIO(stored))


def index(kind: str, folder: Path) -> Pairs:
    """The index of what was written."""
    if kind == "table":
        return PictureTable(str(folder / "captions.csv")).index(0.0)
    if kind == "annotations":
        return Photographs(folder / "pictures", folder / "captions.json", 0.0)
    return PictureShards(str(folder / "shards")).index(0.0)


def own_megabytes() -> float:
    """Memory of this process that no other process shares."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        kilobytes = [int(line.split()[1]) for line in file if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(kilobytes) / 1024


def resident_megabytes(entry: str) -> float:
    """Resident memory of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def read_all(texts: Pairs | Sequence[str] | None, seed: int, pipe: Connection) -> None:
    """A worker: reads everything in an order of its own, and says what memory is its own."""
    count = 0 if texts is None else len(texts)
    for row in shuffled(count, seed):
        if isinstance(texts, Pairs):
            texts.captions(row)
        elif texts is not None:
            _ = texts[row]
    pipe.send(own_megabytes())


def shuffled(count: int, seed: int) -> Iterator[int]:
    """All rows in another order, without a list of them: steps of a number that shares no divisor with the count."""
    step = next((number for number in range(count // 3 + seed, count) if gcd(count, number) == 1), 1)
    return (row * step % count for row in range(count))


def workers_own(texts: Pairs | Sequence[str] | None, num_workers: int) -> float:
    """Most memory of its own that a forked worker ends up with, in megabytes."""
    fork, pipes = multiprocessing.get_context("fork"), []
    for seed in range(num_workers):
        here, there = fork.Pipe()
        worker = fork.Process(target=read_all, args=(texts, seed, there))
        worker.start()
        pipes.append((here, worker))
    found = [pipe.recv() for pipe, _ in pipes]
    for _, worker in pipes:
        worker.join()
    return max(found)


def measure(kind: str, folder: Path, num_workers: int, pipe: Connection) -> None:
    """Index in this process, and let workers read."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident_megabytes("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    pairs = index(kind, folder)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resident_megabytes("VmHWM") - before
    gc.collect()
    kept = resident_megabytes("VmRSS") - before
    idle = workers_own(None, num_workers)
    added = workers_own(pairs, num_workers) - idle
    listed = [caption for row in range(len(pairs)) for caption in pairs.captions(row)]
    control = workers_own(listed, num_workers) - workers_own(None, num_workers)
    pipe.send((seconds, cpu_seconds, before, peak, kept, added, control))


def main() -> None:
    """Write, index and read each kind, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where some gigabytes may be written")
    arguments = parser.parse_args()
    names = ("before", "peak adds", "index keeps", "a worker adds", "list: a worker adds")
    table = Table(
        "files", "index, s", "of CPU, s", *(f"{name}, MB" for name in names), title=f"{arguments.captions:,} captions"
    )
    spawn = multiprocessing.get_context("spawn")
    writers = {"table": write_table, "annotations": write_annotations, "shards": write_shards}
    for kind, write in writers.items():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            write(folder, arguments.captions)
            os.sync()
            here, there = spawn.Pipe()
            process = spawn.Process(target=measure, args=(kind, folder, arguments.workers, there))
            process.start()
            figures = here.recv()
            process.join()
        table.add_row(kind, *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
