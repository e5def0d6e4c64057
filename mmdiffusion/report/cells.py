"""Values of a batch as a reader sees them: a word, or a small picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.callbacks.samples import to_unit
from mmdiffusion.report.uri import picture_uri
from mmdiffusion.types import FeatureSpec, LabelSpec, MaskedSpec, MotionFeatureSpec, MotionSpec, SegmentationSpec, Spec


@dataclass(frozen=True)
class Cell:
    """A value as it is shown.

    Args:
        name: Of the modality.
        text: In words; empty for a picture.
        picture: As a picture; empty for words.
    """

    name: str
    text: str = ""
    picture: str = ""


def cell(name: str, value: Tensor | str, spec: Spec | None) -> Cell | None:
    """One value as it is shown.

    Args:
        name: Of the modality.
        value: A sample's.
        spec: What the value is, where the data say.

    Returns:
        A cell; `None` for what a film shows anyway, images and music.
    """
    if isinstance(value, str):
        return Cell(name, text=value)
    if isinstance(spec, LabelSpec):
        return Cell(name, text=spec.names[int(value)] if spec.names else str(int(value)))
    if isinstance(spec, MaskedSpec):
        return Cell(name, picture=picture_uri(masked_picture(value)))
    if isinstance(spec, SegmentationSpec):
        return Cell(name, picture=picture_uri(map_picture(value, len(spec.names))))
    if isinstance(spec, FeatureSpec | MotionSpec | MotionFeatureSpec):
        return Cell(name, text=" x ".join(map(str, value.shape)) + " numbers")
    return None


def masked_picture(value: Float[Tensor, "c_and_seen h w"]) -> Float[Tensor, "4 h w"]:
    """What can be seen of an image; the rest is transparent."""
    return torch.cat([to_unit(value[:-1]).expand(3, -1, -1), value[-1:].float().cpu()])


def map_picture(value: Int[Tensor, "h w"], num_classes: int) -> Float[Tensor, "3 h w"]:
    """A map of classes in colours, the background grey."""
    hue = torch.arange(num_classes) / max(1, num_classes - 1)
    phases = torch.tensor([[0.0], [1 / 3], [2 / 3]])
    palette = 0.52 + 0.33 * torch.cos(2 * torch.pi * (hue - phases))
    palette[:, 0] = 0.3
    return palette[:, value.cpu().long()]
