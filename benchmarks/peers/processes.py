"""Two processes of one thread beside one process of one thread: the command line trains, the same batch in all.

The rate is the one that `Throughput` logs; the first step, which warms up, is not in it.
"""

import csv
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.table import Row, ratios

NEEDS = ()
CONFIG, LINES = "configs/mt_diffusion/digits.yaml", 2
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
STEPS = {128: 60, 512: 20}
"""Steps of a training by batch: that of the configuration, and one whose steps cost much more than an empty one."""
MAX_ROUNDS = 5
"""Every round starts three processes, which takes longer than what is measured."""


def rate(precision: str, batch: int, num_processes: int) -> float:
    """Samples a second of all processes.

    Args:
        precision: The trainer's.
        batch: Samples of a step, of all processes.
        num_processes: How many share the batch.
    """
    settings = {
        "trainer.accelerator": "cpu",
        "trainer.devices": num_processes,
        "trainer.strategy": "ddp" if num_processes > 1 else "auto",
        "trainer.precision": precision,
        "trainer.max_steps": STEPS[batch],
        "trainer.limit_val_batches": 0,
        "trainer.log_every_n_steps": STEPS[batch] // LINES,
        "trainer.callbacks": '[{"class_path": "Throughput"}]',
        "trainer.enable_progress_bar": "false",
        "data.init_args.batch_size": batch // num_processes,
    }
    call = [sys.executable, "-m", "mmdiffusion", "fit", "-c", CONFIG]
    with TemporaryDirectory() as folder:
        words = [f"--{name}={value}" for name, value in settings.items()]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*call, *words, "--run", f"{folder}/run"], env=environment, capture_output=True, check=True)
        with (Path(folder) / "run" / "metrics.csv").open() as file:
            lines = [row["throughput/samples_per_second"] for row in csv.DictReader(file)]
    return float([line for line in lines if line][-1])


def measure(rounds: int) -> list[Row]:
    """Rows of the table.

    Args:
        rounds: Rounds that count, at most `MAX_ROUNDS`.
    """
    return [row(name, batch, min(rounds, MAX_ROUNDS)) for name in PRECISIONS for batch in STEPS]


def row(name: str, batch: int, rounds: int) -> Row:
    """One row of the table.

    Args:
        name: Of the precision.
        batch: Samples of a step, of all processes.
        rounds: Rounds that count.
    """
    precision = PRECISIONS[name]
    one, two = zip(*((rate(precision, batch, 1), rate(precision, batch, 2)) for _ in range(rounds)), strict=True)
    told = [f"{statistics.median(each):.0f} samples/s" for each in (two, one)]
    bar = f"two processes x one thread, digits, {name}, batch {batch} in all: samples/s over one process's"
    return Row(bar, 1.8, True, ratios(two, one), told[0], told[1])
