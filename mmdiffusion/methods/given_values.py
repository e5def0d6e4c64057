"""Values that are given to a model: of the shape, the type and the range that the data describes."""

import torch
from torch import Tensor

from mmdiffusion.nn.encoders import mean_shape
from mmdiffusion.nn.heads import is_categorical
from mmdiffusion.types import ImageSpec, MaskedSpec, Spec

TOLERANCE = 1e-3
"""How far a picture may leave [-1, 1], by rounding."""


def check_value(name: str, value: object, spec: Spec) -> Tensor:
    """Check known values of one modality.

    Args:
        name: The modality.
        value: Its values.
        spec: What the data says of it.

    Returns:
        The values: classes as int64, all else as float32.

    Raises:
        ValueError: naming the modality, what is wrong with its values, and what was expected.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is of type {type(value).__name__}: expected a tensor")
    shape = mean_shape(spec)
    if is_categorical(spec):
        check_shape(name, value, shape[1:], spec)
        return classes(name, value, shape[0])
    check_shape(name, value, shape, spec)
    check_finite(name, value)
    if isinstance(spec, MaskedSpec):
        check_visibility(name, value[:, -1])
        check_range(name, value[:, :-1])
    if isinstance(spec, ImageSpec):
        check_range(name, value)
    return value.float()


def check_shape(name: str, value: Tensor, expected: tuple[int, ...], spec: Spec) -> None:
    """Check the shape of one sample.

    Args:
        name: The modality.
        value: Its values.
        expected: Shape of one sample.
        spec: What the data says of it.

    Raises:
        ValueError: for another.
    """
    found = tuple(value.shape[1:])
    if found == expected:
        return
    hint = ""
    if isinstance(spec, ImageSpec):
        hint = "; resize it, or convert its colours"
    if isinstance(spec, MaskedSpec):
        hint = ", the last channel says where it can be seen: 1 where it can, 0 where it is hidden"
    raise ValueError(f"{name} is {found}: expected {expected} for each sample{hint}")


def classes(name: str, value: Tensor, num_classes: int) -> Tensor:
    """Numbers of classes, as int64.

    Args:
        name: The modality.
        value: Its values.
        num_classes: How many classes there are.

    Raises:
        ValueError: if they are no integers, or outside the classes.
    """
    last = num_classes - 1
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} is {value.dtype}: expected integers, 0 to {last}; take {name}.long()")
    outside = value[(value < 0) | (value > last)]
    if len(outside):
        raise ValueError(f"{name} is {int(outside[0])}: expected 0 to {last}, the classes of the training data")
    return value.long()


def check_finite(name: str, value: Tensor) -> None:
    """Check that values are finite numbers.

    Args:
        name: The modality.
        value: Its values.

    Raises:
        ValueError: if they are integers, or a sample holds others.
    """
    if not value.is_floating_point():
        raise ValueError(f"{name} is {value.dtype}: expected floating-point numbers, scaled as in training")
    broken = (~value.isfinite()).flatten(1).any(1)
    if broken.any():
        first = int(broken.nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinity in sample {first}: expected finite numbers; mend or drop it")


def check_range(name: str, value: Tensor) -> None:
    """Check that colours are in [-1, 1].

    Args:
        name: The modality.
        value: Its colours, finite.

    Raises:
        ValueError: if they are not.
    """
    if value.numel() and value.abs().max() > 1 + TOLERANCE:
        raise ValueError(
            f"{name} runs from {value.min():g} to {value.max():g}: expected -1 to 1; scale it, 8-bit values x as "
            "x / 127.5 - 1"
        )


def check_visibility(name: str, visible: Tensor) -> None:
    """Check the channel that says where a masked image can be seen.

    Args:
        name: The modality.
        visible: The channel.

    Raises:
        ValueError: if it is anything but 0 and 1.
    """
    between = visible[(visible != 0) & (visible != 1)]
    if len(between):
        raise ValueError(
            f"{name} has {between[0]:g} in its last channel: expected 1 where it can be seen, 0 where it is hidden; "
            "round it"
        )
