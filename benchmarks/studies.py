"""What studies share: runs that are made once and kept, their figures, and mean and spread over seeds."""

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdiffusion.callbacks.table import FILES
from mmdiffusion.cli import execute


def kept(folder: Path, make: Callable[[], Any]) -> Any:
    """What a run gave: from its folder where it is finished, so that a study that was interrupted goes on.

    Args:
        folder: Of the run; what an interruption has left there is removed.
        make: Makes the run in this folder, and returns what is kept as JSON.
    """
    finished = folder / "result.json"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        result = make()
        finished.write_text(json.dumps(result) + "\n")
    return json.loads(finished.read_text())


def test(folder: Path, *options: str) -> dict[str, dict[str, float]]:
    """Test a run: values by metric and column.

    Args:
        folder: Of the run.
        options: Further settings, as on the command line.
    """
    execute(["test", "--run", str(folder), *options])
    made = json.loads((folder / FILES["test"]).read_text())
    return {metric: {column: figure["value"] for column, figure in row.items()} for metric, row in made.items()}


def spread(values: list[float]) -> str:
    """Mean and standard deviation, to three digits of the mean."""
    mean = statistics.mean(values)
    digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 0
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{deviation}"
