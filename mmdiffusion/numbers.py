"""Numbers that a user sets: finite, and in their range. NaN passes any `value < 0`, and infinity most."""

import math


def check_number(
    field: str,
    value: float | int,
    *,
    least: int | None = None,
    above: int | None = None,
    remedy: str = "",
) -> None:
    """Check a number.

    Args:
        field: Its name.
        value: The number.
        least: Smallest value allowed; `None` for none.
        above: What it must be larger than; `None` for nothing.
        remedy: What to do instead, after the message.

    Raises:
        ValueError: if it is NaN or infinite, or out of range.
    """
    is_inside = (least is None or value >= least) and (above is None or value > above)
    if is_inside and math.isfinite(value):
        return
    limits = [f"{least} or more"] * (least is not None) + [f"above {above}"] * (above is not None)
    expected = ", ".join([*limits, "and finite"]) if limits else "a finite number"
    raise ValueError(f"{field} is {value}: expected {expected}" + (f"; {remedy}" if remedy else ""))


def check_numbers(**values: float | int) -> None:
    """Check that numbers are finite.

    Args:
        values: By the name of their field.

    Raises:
        ValueError: if one is NaN or infinite.
    """
    for field, value in values.items():
        check_number(field, value)
