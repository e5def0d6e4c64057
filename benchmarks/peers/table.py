"""Bars, what was measured against them, and both as one table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = ("bar", "wanted", "measured", "quartiles", "reached", "ours", "peer")


@dataclass(frozen=True)
class Row:
    """One bar.

    Attributes:
        bar: Its name.
        limit: What is wanted.
        is_least: The limit is the least that reaches the bar, not the most.
        figures: What was measured, by round.
        ours: What stands behind the figures on our side, in words.
        peer: The same on the side of the peer; empty where the bar is not relative.
        form: How a figure is written.
    """

    bar: str
    limit: float
    is_least: bool
    figures: Sequence[float]
    ours: str
    peer: str = ""
    form: str = "{:.2f} x"

    @property
    def median(self) -> float:
        """Median of the figures."""
        return statistics.median(self.figures)

    @property
    def is_reached(self) -> bool:
        """Whether the median reaches the bar."""
        return self.median >= self.limit if self.is_least else self.median <= self.limit

    def cells(self) -> list[str]:
        """Cells of the table."""
        wanted = ("at least " if self.is_least else "at most ") + self.form.format(self.limit)
        between = ""
        if len(self.figures) > 1:
            low, _, high = statistics.quantiles(self.figures, n=4, method="inclusive")
            between = f"{self.form.format(low)} to {self.form.format(high)}"
        reached = "yes" if self.is_reached else "no"
        return [self.bar, wanted, self.form.format(self.median), between, reached, self.ours, self.peer]


def markdown(rows: Sequence[Row]) -> str:
    """All rows as one Markdown table."""
    lines = [HEADER, ("---",) * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def ratios(first: Sequence[float], second: Sequence[float], factor: float = 1.0) -> list[float]:
    """Ratios within each round.

    Args:
        first: Numerators by round.
        second: Denominators by round.
        factor: What every ratio is multiplied by.
    """
    return [factor * one / other for one, other in zip(first, second, strict=True)]
