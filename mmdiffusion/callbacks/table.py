"""The table of figures: printed, logged, and written beside the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mmdiffusion.data.base import Split

Figure = dict[str, Any]
"""A value with its number of samples and protocol."""
Figures = dict[str, dict[str, Figure]]
"""By metric and column."""
FILES = {"val": "metrics-val.json", "test": "metrics.json"}


def report(
    figures: Figures,
    order: Sequence[str],
    trainer: Trainer,
    split: Split,
    subtitle: str,
    stem: str = "metrics",
) -> None:
    """Print figures, log them, and write them into the run's folder.

    Args:
        figures: By metric and column.
        order: Columns, those without a figure among them.
        trainer: Its folder is the run's, its loggers log.
        split: What was measured on.
        subtitle: Follows the folder and the split above the table.
        stem: Name of the file, without the split.
    """
    run = Path(trainer.default_root_dir)
    columns = [c for c in dict.fromkeys(order) if any(c in f for f in figures.values())]
    headers = [Column(c, no_wrap=True) for c in ("metric", *columns)]
    title = f"{run}, {split} split: {subtitle}"
    table = Table(*headers, title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, row in figures.items():
        table.add_row(escape(name), *(f"{row[c]['value']:.4g}" if c in row else "" for c in columns))
    console = Console()  # figures that are cut off would be of no use: a narrow terminal may break the lines
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)
    for logger in trainer.loggers:
        logger.log_metrics({f"{split}/{m}/{c}": f["value"] for m, row in figures.items() for c, f in row.items()})
    run.mkdir(parents=True, exist_ok=True)
    (run / FILES[split].replace("metrics", stem)).write_text(json.dumps(figures, indent=2) + "\n")
