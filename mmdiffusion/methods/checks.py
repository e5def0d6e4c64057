"""A user's mistakes, found before any work: settings of a method, and what it is asked to draw."""

import math
from collections.abc import Iterable, Sequence

from mmdiffusion.types import DataSpec, ImageSpec, LabelSpec


def image_and_label(spec: DataSpec) -> tuple[ImageSpec, LabelSpec]:
    """The two modalities of a joint image-label method.

    Raises:
        ValueError: if the data has no image or no label.
    """
    image, label = spec.get("image"), spec.get("label")
    if not isinstance(image, ImageSpec) or not isinstance(label, LabelSpec):
        raise ValueError(f"spec has {', '.join(spec)}: MTDiffusion expects data with image and label, such as Digits")
    return image, label


def check_shares(absent_share: float, shown_share: float, label_weight: float) -> None:
    """Check the shares of the label's states and its weight.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    for name, share in (("absent_share", absent_share), ("shown_share", shown_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}: expected 0 to 1")
    if absent_share + shown_share > 1:
        raise ValueError(f"absent_share + shown_share is {absent_share + shown_share}: expected at most 1")
    if label_weight < 0:
        raise ValueError(f"label_weight is {label_weight}: expected 0 or more")


def check_times(classify_times: Sequence[float]) -> None:
    """Check the times of the states that `classify` looks at.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if not classify_times or not all(0 < time <= 1 for time in classify_times):
        raise ValueError(f"classify_times is {list(classify_times)}: expected at least one, each above 0 up to 1")


def check_sharpening(truncation: float, temperature: float) -> None:
    """Check how predictions of codes are sharpened in sampling.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if not 0 < truncation <= 1:
        raise ValueError(f"truncation is {truncation}: expected above 0 and at most 1, which keeps every code")
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature}: expected a number above 0; for the most probable code alone take a tiny "
            "truncation"
        )


def check_request(
    given: Iterable[str],
    drawn: Sequence[str] | None,
    guidance: float | None,
    *,
    givable: Sequence[str],
    drawable: Sequence[str],
) -> None:
    """Check what a method is asked to draw: nothing that is given may be left unused.

    Args:
        given: Known modalities.
        drawn: Modalities to draw; `None` for the method's own.
        guidance: Guidance asked for, which needs something given; `None` for the method's own.
        givable: Modalities that the method can be given.
        drawable: Modalities that the method can draw.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    given = set(given)
    for field, names, possible in (("given", given, givable), ("drawn", drawn or [], drawable)):
        for name in names:
            if name not in possible:
                raise ValueError(f"{field} is {name!r}: expected {' or '.join(possible) or 'nothing'} from this model")
    if drawn is not None and (not drawn or given & set(drawn)):
        raise ValueError(f"drawn is {list(drawn)}: expected some of {', '.join(drawable)} that is not given")
    if guidance is not None and not given:
        raise ValueError(f"guidance is {guidance}: expected None, as nothing is given")
