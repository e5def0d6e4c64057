"""The curves of a training, from `metrics.csv`."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from mmdiffusion.report.axes import Axis, linear, logarithmic

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40
MOST_POINTS = 600
"""Of a line; further ones would be closer than pixels."""
NUM_WINDOWS = 40
"""Windows of a running mean in a whole training."""


@dataclass(frozen=True)
class Curve:
    """A logged number over the steps of a training.

    Args:
        steps: Rising.
        values: Finite numbers.
        num_lost: Entries that were no finite number, and are not shown.
    """

    steps: list[int]
    values: list[float]
    num_lost: int = 0


@dataclass(frozen=True)
class Line:
    """A curve as it is drawn.

    Args:
        kind: "train", "val", or "other".
        path: Data of an SVG path.
        mean: The same of a running mean; empty where there are few points.
        dots: Places of points, where there are few.
        last: The last value.
        step: Its step.
        num_lost: See `Curve`.
    """

    kind: str
    path: str
    mean: str
    dots: list[tuple[float, float]]
    last: float
    step: int
    num_lost: int


@dataclass(frozen=True)
class Chart:
    """One number in training and validation.

    Args:
        name: What is drawn.
        lines: Its curves.
        across: Steps.
        up: Values.
    """

    name: str
    lines: list[Line]
    across: Axis
    up: Axis


def charts(path: Path) -> list[Chart]:
    """Charts of a run, the loss first.

    Args:
        path: Its `metrics.csv`; without one there are no charts.

    Raises:
        ValueError: if the file holds something else.
    """
    found: dict[str, dict[str, Curve]] = {}
    for name, curve in (read_curves(path) if path.is_file() else {}).items():
        part, _, term = name.partition("/")
        kind = part if part in ("train", "val") else "other"
        found.setdefault(name if kind == "other" else term, {})[kind] = curve
    return [chart(name, found[name]) for name in sorted(found, key=lambda name: name != "loss")]


def read_curves(path: Path) -> dict[str, Curve]:
    """What was logged, by its name.

    Raises:
        ValueError: if the file holds something else.
    """
    curves: dict[str, Curve] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        for name in [name for name in rows[0] if "/" in name] if rows else []:
            entries = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            finite = [entry for entry in entries if math.isfinite(entry[1])]
            if finite:
                steps, values = zip(*finite, strict=True)
                curves[name] = Curve(list(steps), list(values), len(entries) - len(finite))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a table of steps and numbers, as `mmdiffusion fit` writes it") from error
    return curves


def chart(name: str, curves: dict[str, Curve]) -> Chart:
    """Curves on common axes; values are logarithmic where they are positive and their range is large.

    Args:
        name: Of the chart.
        curves: By kind.
    """
    steps = [step for curve in curves.values() for step in curve.steps]
    values = [value for curve in curves.values() for value in curve.values]
    across = linear(0, max(steps), LEFT, WIDTH - RIGHT, whole=True)
    is_wide = min(values) > 0 and max(values) > 20 * min(values)
    up = (logarithmic if is_wide else linear)(min(values), max(values), HEIGHT - BOTTOM, TOP)
    return Chart(name, [line(kind, curve, across, up) for kind, curve in curves.items()], across, up)


def line(kind: str, curve: Curve, across: Axis, up: Axis) -> Line:
    """A curve on its axes; see `Line`."""
    size = len(curve.values)
    window = size // NUM_WINDOWS
    stride = math.ceil(size / MOST_POINTS)
    points = [(across.place(step), up.place(value)) for step, value in zip(curve.steps, curve.values, strict=True)]
    means = [sum(curve.values[i - window : i]) / window for i in range(window, size + 1)] if window > 1 else []
    middles = curve.steps[window // 2 : window // 2 + len(means)]
    mean = [(across.place(step), up.place(value)) for step, value in zip(middles, means, strict=True)]
    dots = points if size <= NUM_WINDOWS and kind != "train" else []
    last = curve.values[-1], curve.steps[-1]
    return Line(kind, svg_path(points[::stride]), svg_path(mean[::stride]), dots, *last, curve.num_lost)


def svg_path(points: list[tuple[float, float]]) -> str:
    """Points as the data of an SVG path."""
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
