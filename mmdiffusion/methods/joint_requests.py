"""What MT-Diffusion is asked for: any modalities known, any others drawn, if it was trained for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from mmdiffusion.methods.checks import check_counts, check_request, check_trained
from mmdiffusion.numbers import check_numbers
from mmdiffusion.types import Batch

if TYPE_CHECKING:
    from mmdiffusion.methods.mt_diffusion import MTDiffusion


class Guidance(NamedTuple):
    """Guidance that is asked for; `None` takes the method's own.

    Attributes:
        given: Classifier-free guidance of what is given.
        heads: Guidance of what is given by the model's own heads.
        representation: Guidance of the image by what is drawn beside it.
    """

    given: float | None = None
    heads: float | None = None
    representation: float | None = None

    def check(self) -> None:
        """Check that what is asked for is finite.

        Raises:
            ValueError: naming the setting.
        """
        fields = ("guidance", "head_guidance", "representation_guidance")
        check_numbers(**{field: value for field, value in zip(fields, self, strict=True) if value is not None})


class JointRequest(NamedTuple):
    """A request that can be served.

    Attributes:
        known: Values of known modalities, checked.
        drawn: Names of the modalities to draw.
        guidance: Classifier-free guidance of what is known.
        head_guidance: Guidance of what is known by the heads.
        representation_guidance: Guidance of the image by what is drawn beside it.
    """

    known: dict[str, Tensor]
    drawn: tuple[str, ...]
    guidance: float
    head_guidance: float
    representation_guidance: float

    @property
    def drawn_extras(self) -> tuple[str, ...]:
        """What is drawn beside the image."""
        return tuple(name for name in self.drawn if name != "image")


def check_joint(
    method: "MTDiffusion",
    condition: Batch,
    drawn: Sequence[str] | None,
    guidance: Guidance,
    num_samples: int,
) -> JointRequest:
    """Check what a model is asked for, and say what that is.

    Args:
        method: The model.
        condition: Known modalities.
        drawn: What to draw; `None` for all that it can.
        guidance: Guidance asked for.
        num_samples: Samples to draw.

    Raises:
        ValueError: naming what is wrong, and what was expected.
    """
    guidance.check()
    asked = guidance.given if guidance.heads is None else guidance.heads
    check_request(condition, drawn, asked, givable=method.givable, drawable=method.drawable)
    check_counts(condition, num_samples)
    names = default(method, condition) if drawn is None else tuple(drawn)
    if not names:
        raise ValueError(f"given is {', '.join(condition)}: expected something left to draw")
    check_drawn(method, condition, names)
    own = (method.guidance, method.head_guidance, method.representation_guidance)
    given, heads, representation = (mine if asked is None else asked for mine, asked in zip(own, guidance, strict=True))
    if condition and "image" not in condition and (given, heads) != (1, 0):
        for name in condition:
            check_trained(method.extra(name).absent_share, f"absent_share of {name}", "guidance")
            if heads:
                check_trained(method.extra(name).weight, f"weight of {name}", "guidance by its head")
    known = {name: checked(method, name, values) for name, values in condition.items()}
    request = JointRequest(known, names, given, heads, representation)
    check_beside(method, request, guidance.representation)
    return request


def check_beside(method: "MTDiffusion", request: JointRequest, asked: float | None) -> None:
    """Check that representation guidance has something to guide by, and that training covers it.

    Args:
        method: The model.
        request: What is drawn.
        asked: Representation guidance asked for; `None` for the method's own, which acts where it can.

    Raises:
        ValueError: naming the setting and what it must be.
    """
    beside = [] if "image" in request.known else method.beside(request.drawn_extras)
    if asked is not None and not beside:
        raise ValueError(
            f"representation_guidance is {asked}: expected None, as nothing is drawn with the image in channels or a "
            "token of its own"
        )
    if request.representation_guidance != 1:
        for name in beside:
            check_trained(method.extra(name).absent_share, f"absent_share of {name}", "representation guidance")


def default(method: "MTDiffusion", condition: Batch) -> tuple[str, ...]:
    """What is drawn when nothing is said: all that is not known, as far as training covers it."""
    names = method.readable if "image" in condition else method.makes
    return tuple(name for name in names if name not in condition)


def check_drawn(method: "MTDiffusion", condition: Batch, names: Sequence[str]) -> None:
    """Check that training covers the states that a request needs.

    Args:
        method: The model.
        condition: Known modalities.
        names: What is drawn.

    Raises:
        ValueError: naming the setting and what it must be.
    """
    if "image" in condition:
        for name in names:
            check_trained(method.extra(name).absent_share, f"absent_share of {name}", "reading it off an image")
            check_trained(method.extra(name).weight, f"weight of {name}", "a head that reads it")
        return
    if "image" not in names:
        raise ValueError(f"drawn is {list(names)}: expected image among them, extras are drawn with images")
    for extra in method.each():
        if extra.name in names and not extra.is_hidden_at_times:
            raise ValueError(
                f"drawn has {extra.name}, whose absent_share and shown_share are 1 in sum: expected less in training, "
                "for drawing it with an image"
            )
        if extra.name not in condition and extra.name not in names:
            check_trained(extra.absent_share, f"absent_share of {extra.name}", "drawing images without it")


def checked(method: "MTDiffusion", name: str, values: object) -> Tensor:
    """Known values, as the data describes them."""
    assert isinstance(values, Tensor)
    if name != "image":
        return method.extra(name).check(values)
    expected = (method.image.channels, method.image.size, method.image.size)
    if tuple(values.shape[1:]) != expected:
        raise ValueError(f"image is {tuple(values.shape[1:])}: expected {expected} for each sample")
    return values
