"""Axes of charts: where a value stands, and which values are named."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis in a picture.

    Args:
        place: A value to its place.
        ticks: Places and names of round values.
        is_logarithmic: Equal ratios have equal lengths.
    """

    place: Callable[[int | float], float]
    ticks: list[tuple[float, str]]
    is_logarithmic: bool = False


def linear(low: int | float, high: int | float, start: int | float, end: int | float, whole: bool = False) -> Axis:
    """An axis with even steps, which begins and ends at round values.

    Args:
        low: Smallest value.
        high: Largest value.
        start: Place of the smallest.
        end: Place of the largest.
        whole: Values are whole numbers, and the axis ends at the largest itself.
    """
    if high == low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = round_step((high - low) / 4)
    step = max(1, step) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    if not whole:
        low, high = first * step, last * step
    values = [i * step for i in range(first, last + 1) if low <= i * step <= high * (1 + 1e-9) + 1e-12]

    def place(value: int | float) -> float:
        return start + (value - low) / (high - low) * (end - start)

    return Axis(place, [(place(value), f"{value:,.0f}" if whole else named(value, step)) for value in values])


def logarithmic(low: int | float, high: int | float, start: int | float, end: int | float) -> Axis:
    """An axis on which equal ratios have equal lengths; see `linear`.

    Args:
        low: Smallest value, above 0.
        high: Largest value.
        start: Place of the smallest.
        end: Place of the largest.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [value for value in values if low * 0.999 <= value <= high * 1.001]

    def place(value: int | float) -> float:
        return start + math.log(value / low) / math.log(high / low) * (end - start)

    stride = math.ceil(len(inside) / 6)
    return Axis(place, [(place(value), f"{value:g}") for value in inside[::stride]], True)


def round_step(step: int | float) -> float:
    """The next of 1, 2, 5, 10, ... that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def named(value: int | float, step: int | float) -> str:
    """A value with as many digits as its neighbours differ in."""
    if abs(value) < step / 2:
        return "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits}f}" if digits <= 4 and abs(value) < 1e6 else f"{value:.3g}"
