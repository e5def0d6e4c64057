"""What it costs DiffDis to recognise images: more classes, more steps, and images that see the query or do not.

    python -m benchmarks.recognition [--rounds 15] [--threads 2] [--batch 250]

The network of configs/diffdis/shapes.yaml with random weights, bfloat16. Variants take turns in one process; the ratio
is the median over rounds of (variant / first variant). Classes are embedded beforehand, once, as for a data set.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.turns import seconds_in_turns
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.methods import DiffDis
from mmdiffusion.types import Batch

CONFIG = Path(__file__).parents[1] / "configs" / "diffdis" / "shapes.yaml"


def build(direction: str) -> DiffDis:
    """The shipped network, untrained."""
    words = ["--config", str(CONFIG), f"--model.init_args.denoiser.init_args.query_direction={direction}"]
    sys.argv[1:] = []  # LightningCLI compares them with its arguments
    with TemporaryDirectory() as folder:
        method = MMDiffusionCLI(Path(folder), words, execute=False).model.eval()
    assert isinstance(method, DiffDis)
    return method


def variants(batch_size: int) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed, by name; the first is what the others are compared with."""
    methods = {direction: build(direction) for direction in ("one_way", "two_way")}
    batch: Batch = {"image": torch.rand(batch_size, 3, 32, 32) * 2 - 1, "index": torch.arange(batch_size)}
    prompts = [f"a small red circle number {i}" for i in range(1000)]
    classes = methods["one_way"].encode_classes(prompts)

    def classify(direction: str, count: int, steps: int) -> Callable[[], torch.Tensor]:
        method = methods[direction]

        def run() -> torch.Tensor:
            method.alignment_steps = steps
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                return method.classify(batch, classes[:count])

        return run

    return {
        "one way, 1 step, 10 classes": classify("one_way", 10, 1),
        "one way, 1 step, 1,000 classes": classify("one_way", 1000, 1),
        "one way, 10 steps, 10 classes": classify("one_way", 10, 10),
        "two way, 1 step, 10 classes": classify("two_way", 10, 1),
        "two way, 10 steps, 10 classes": classify("two_way", 10, 10),
    }


def main() -> None:
    """Time all variants in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=250)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = variants(arguments.batch)
    seconds = seconds_in_turns(runs, arguments.rounds)
    table = Table("variant", "median, ms", "range, ms", "ratio")
    first = next(iter(seconds.values()))
    for name, times in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(times, first, strict=True))
        span = f"{1e3 * min(times):.0f}-{1e3 * max(times):.0f}"
        table.add_row(name, f"{1e3 * statistics.median(times):.0f}", span, f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
