"""The table of figures: printed, logged, written beside the run, and read back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
STEMS = ("metrics", "bound")
"""Names that files of figures begin with: those of `Evaluate` and of `Bound`."""


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
    print_table(figures, columns, f"{run}, {split} split: {subtitle}")
    for logger in trainer.loggers:
        logger.log_metrics({f"{split}/{m}/{c}": f["value"] for m, row in figures.items() for c, f in row.items()})
    run.mkdir(parents=True, exist_ok=True)
    (run / FILES[split].replace("metrics", stem)).write_text(json.dumps(figures, indent=2) + "\n")


# Printing ------------------------------------------------------------------------------------------------------


def print_table(figures: Figures, columns: Sequence[str], title: str) -> None:
    """Print figures with one line a metric, or one line a column where the terminal is too narrow for that.

    Args:
        figures: By metric and column.
        columns: Which to print, in their order.
        title: Stands above.
    """
    console = Console()
    tables = [make_table(figures, columns, title, is_turned) for is_turned in (False, True)]
    widths = [Console(width=10_000).measure(table).maximum for table in tables]
    chosen = 0 if widths[0] <= max(console.width, widths[1]) else 1
    # figures that are cut off would be of no use: where neither fits, a narrow terminal may break the lines
    console.width = max(console.width, widths[chosen])
    console.print(tables[chosen])


def make_table(figures: Figures, columns: Sequence[str], title: str, is_turned: bool) -> Table:
    """A table of figures, empty where there is none.

    Args:
        figures: By metric and column.
        columns: Which to show, in their order.
        title: Stands above.
        is_turned: Metrics stand side by side, columns one below the other.
    """
    top, side = (list(figures), columns) if is_turned else (columns, list(figures))
    headers = [Column(escape(name), no_wrap=True) for name in ("" if is_turned else "metric", *top)]
    table = Table(*headers, title=escape(title), box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for line in side:
        pairs = [(name, line) if is_turned else (line, name) for name in top]
        values = [figures[metric].get(column) for metric, column in pairs]
        table.add_row(escape(line), *("" if value is None else f"{value['value']:.4g}" for value in values))
    return table


# Reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Figures as a run's folder holds them.

    Args:
        file: Name of the file.
        split: What was measured on: "test" or "val".
        figures: By metric and column.
    """

    file: str
    split: str
    figures: Figures

    @property
    def columns(self) -> list[str]:
        """All columns, in the order in which they appear."""
        return list(dict.fromkeys(column for row in self.figures.values() for column in row))

    @property
    def made(self) -> dict[str, Figure]:
        """How the samples of each column were made; columns of real data have none."""
        found = {
            column: figure["made"]
            for row in self.figures.values()
            for column, figure in row.items()
            if "made" in figure
        }
        return {column: found[column] for column in self.columns if column in found}


def read_figures(run: Path) -> list[Measured]:
    """Figures that a run's folder holds, the test split's first.

    Args:
        run: The folder.

    Raises:
        ValueError: naming a file that holds something else.
    """
    names = {
        file.replace("metrics", stem): split for split in ("test", "val") for stem in STEMS for file in [FILES[split]]
    }
    return [Measured(name, split, read_file(run / name)) for name, split in names.items() if (run / name).is_file()]


def read_file(path: Path) -> Figures:
    """Figures of one file.

    Raises:
        ValueError: if it holds something else.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(figure["value"], float | int) for row in figures.values() for figure in row.values())
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected figures as `mmdiffusion test` writes them; measure the run again"
        ) from error
    return figures


def protocol(row: dict[str, Figure]) -> tuple[Figure, dict[str, Figure]]:
    """How the figures of one metric were obtained: what all columns have in common, and what each adds.

    Args:
        row: The figures by column.
    """
    return shared({c: {n: v for n, v in figure.items() if n not in ("value", "made")} for c, figure in row.items()})


def shared(parts: dict[str, Figure]) -> tuple[Figure, dict[str, Figure]]:
    """Settings that several columns have in common, and what each has beside them.

    Args:
        parts: Settings by column.
    """
    first, *others = parts.values()
    common = {name: value for name, value in first.items() if all(part.get(name) == value for part in others)}
    own = {column: {n: v for n, v in part.items() if n not in common} for column, part in parts.items()}
    return common, {column: part for column, part in own.items() if part}


def in_words(settings: Figure) -> str:
    """Settings in a line: `360 samples, sampler ddpm, given label`."""
    words = []
    for name, value in settings.items():
        is_count = name.startswith("num_") and isinstance(value, int)
        shown = name.removeprefix("num_").replace("_", " ")
        words.append(f"{value:,} {shown}" if is_count else f"{shown} {in_word(value)}")
    return ", ".join(words)


def in_word(value: Any) -> str:
    """A setting's value in a line."""
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "nothing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
