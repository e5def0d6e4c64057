"""What MT-Diffusion is asked for: any modalities known, any others drawn, if it was trained for them."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from mmdiffusion.methods.checks import check_counts, check_names, check_trained
from mmdiffusion.methods.given_values import check_value
from mmdiffusion.numbers import check_numbers
from mmdiffusion.types import Batch

if TYPE_CHECKING:
    from mmdiffusion.methods.mt_diffusion import MTDiffusion


class Asked(NamedTuple):
    """How samples are asked for; `None` takes the method's own.

    Attributes:
        steps: Sampling steps.
        guidance: Classifier-free guidance of what is given.
        head_guidance: Guidance of what is given by the model's own heads.
        representation_guidance: Guidance of the image by what is drawn beside it.
    """

    steps: int | None = None
    guidance: float | None = None
    head_guidance: float | None = None
    representation_guidance: float | None = None

    def check(self) -> None:
        """Check that what is asked for is finite.

        Raises:
            ValueError: naming the setting.
        """
        check_numbers(**{field: value for field, value in self._asdict().items() if value is not None})


class JointRequest(NamedTuple):
    """A request that can be served.

    Attributes:
        drawn: Names of the modalities to draw.
        steps: Sampling steps.
        guidance: Classifier-free guidance of what is known.
        head_guidance: Guidance of what is known by the heads.
        representation_guidance: Guidance of the image by what is drawn beside it.
    """

    drawn: tuple[str, ...]
    steps: int
    guidance: float
    head_guidance: float
    representation_guidance: float

    @property
    def drawn_extras(self) -> tuple[str, ...]:
        """What is drawn beside the image."""
        return tuple(name for name in self.drawn if name != "image")


def check_joint(
    method: "MTDiffusion",
    given: Collection[str],
    drawn: Sequence[str] | None,
    asked: Asked,
) -> JointRequest:
    """Check all that a model is asked for but the values, and say what that is.

    Args:
        method: The model.
        given: Names of known modalities.
        drawn: What to draw; `None` for all that it can.
        asked: How.

    Raises:
        ValueError: naming what is wrong, and what was expected.
    """
    asked.check()
    if "image" not in given:
        check_trained(method.image_weight, "image_weight", "drawing images")
    check_heads(method, given, drawn or ())
    check_names(given, drawn, asked.guidance, givable=method.givable, drawable=method.drawable)
    check_effect(given, asked)
    names = default(method, given) if drawn is None else tuple(drawn)
    if not names:
        raise ValueError(
            f"given is {', '.join(given)}: expected something left to draw; leave out image to draw images, or "
            f"{' or '.join(method.readable)} to read it off the image"
        )
    settings = {name: getattr(method, name) if value is None else value for name, value in asked._asdict().items()}
    request = JointRequest(names, **settings)
    if "image" not in given:
        check_drawn(method, given, names)
        check_guided(method, given, request)
        check_beside(method, request, asked.representation_guidance)
    return request


def check_heads(method: "MTDiffusion", given: Collection[str], names: Sequence[str]) -> None:
    """Check that training reaches the heads that draw, and that they have seen images without what they read.

    Args:
        method: The model.
        given: Names of known modalities.
        names: What is drawn.

    Raises:
        ValueError: naming the setting of the extra modality.
    """
    for extra in method.each():
        if extra.name in names:
            check_trained(extra.weight, f"weight of {extra.name}", "a head that draws it")
            if "image" in given:
                check_trained(extra.absent_share, f"absent_share of {extra.name}", "reading it off an image")


def check_effect(given: Collection[str], asked: Asked) -> None:
    """Check that no setting is asked for in vain.

    Args:
        given: Names of known modalities.
        asked: Settings that somebody set.

    Raises:
        ValueError: naming the setting.
    """
    if "image" in given:
        for name, value in asked._asdict().items():
            if value is not None:
                raise ValueError(
                    f"{name} is {value}: expected None, as the image is given, off which extras are read without "
                    "sampling; leave it out"
                )
    if not given and asked.head_guidance is not None:
        raise ValueError(f"head_guidance is {asked.head_guidance}: expected None, as nothing is given")


def check_guided(method: "MTDiffusion", given: Collection[str], request: JointRequest) -> None:
    """Check that training covers guidance by known extras.

    Args:
        method: The model.
        given: Their names.
        request: What is drawn, and how it is guided.

    Raises:
        ValueError: naming the setting and what it must be.
    """
    if (request.guidance, request.head_guidance) == (1, 0):
        return
    for name in given:
        check_trained(method.extra(name).absent_share, f"absent_share of {name}", "guidance")
        if request.head_guidance:
            check_trained(method.extra(name).weight, f"weight of {name}", "guidance by its head")


def check_beside(method: "MTDiffusion", request: JointRequest, asked: float | None) -> None:
    """Check that representation guidance has something to guide by, and that training covers it.

    Args:
        method: The model.
        request: What is drawn.
        asked: Representation guidance asked for; `None` for the method's own, which acts where it can.

    Raises:
        ValueError: naming the setting and what it must be.
    """
    beside = method.beside(request.drawn_extras)
    if asked is not None and not beside:
        raise ValueError(
            f"representation_guidance is {asked}: expected None, as nothing is drawn with the image in channels or a "
            "token of its own"
        )
    if request.representation_guidance != 1:
        for name in beside:
            check_trained(method.extra(name).absent_share, f"absent_share of {name}", "representation guidance")


def default(method: "MTDiffusion", given: Collection[str]) -> tuple[str, ...]:
    """What is drawn when nothing is said: all that is not known, as far as training covers it."""
    names = method.readable if "image" in given else method.makes
    return tuple(name for name in names if name not in given)


def check_drawn(method: "MTDiffusion", given: Collection[str], names: Sequence[str]) -> None:
    """Check that training covers the states that a request for images needs.

    Args:
        method: The model.
        given: Names of known modalities.
        names: What is drawn.

    Raises:
        ValueError: naming the setting and what it must be.
    """
    if "image" not in names:
        raise ValueError(f"drawn is {list(names)}: expected image among them, extras are drawn with images")
    for extra in method.each():
        if extra.name in names and not extra.is_hidden_at_times:
            raise ValueError(
                f"drawn has {extra.name}, whose absent_share and shown_share are 1 in sum: expected less in training, "
                "for drawing it with an image"
            )
        if extra.name not in given and extra.name not in names:
            check_trained(extra.absent_share, f"absent_share of {extra.name}", "drawing images without it")


def known_values(method: "MTDiffusion", condition: Batch, num_samples: int) -> dict[str, Tensor]:
    """Known values as the data describes them, on the model's device.

    Args:
        method: The model.
        condition: Known modalities that it can be given.
        num_samples: Samples to draw.

    Raises:
        ValueError: naming the modality, what is wrong with its values, and what was expected.
    """
    check_counts(condition, num_samples)
    known = {}
    for name, values in condition.items():
        value = check_value(name, values, method.image if name == "image" else method.extra(name).spec)
        known[name] = value.to(method.device, copy=True)
    return known
