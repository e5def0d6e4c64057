"""Samples as they are looked at: what belongs together side by side."""

import colorsys

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.types import Batch

_GOLDEN = 0.618033988749895
"""Steps of the golden ratio around the circle of hues keep neighbouring numbers apart."""


def shown(batch: Batch) -> Batch:
    """Samples as pictures or sounds to look at or listen to.

    To the left of an image what can be seen of it, where it is masked; to its right its map of classes, in colours. A
    reconstruction follows what it was made from: to its right, or later in the same sound.

    Args:
        batch: Samples, and what they were drawn for.
    """
    image, music, rebuilt = (batch.get(name) for name in ("image", "music", "reconstruction"))
    joined: Batch = {}
    if isinstance(music, Tensor) and isinstance(rebuilt, Tensor):
        joined["music"] = torch.cat([music.to(rebuilt), rebuilt], -1)
    if isinstance(image, Tensor):
        joined["image"] = torch.cat([part.to(image).expand(-1, image.shape[1], -1, -1) for part in _row(batch)], -1)
    return batch | joined


def _row(batch: Batch) -> list[Tensor]:
    masked, classes = batch.get("masked"), batch.get("segmentation")
    parts = [
        masked[:, :-1] if isinstance(masked, Tensor) else None,
        batch["image"],
        colours(classes) if isinstance(classes, Tensor) else None,
        batch.get("reconstruction"),
    ]
    return [part for part in parts if isinstance(part, Tensor)]


def colours(classes: Int[Tensor, "b h w"]) -> Float[Tensor, "b three h w"]:
    """Maps of classes in colours, in [-1, 1]: class 0 is black, the others have hues far apart.

    Args:
        classes: Number of the class of each pixel, 0 or more.
    """
    count = int(classes.max()) + 1
    hues = [colorsys.hsv_to_rgb(_GOLDEN * number % 1, 0.65, 0.95) for number in range(1, count)]
    table = torch.tensor([(0.0, 0.0, 0.0), *hues], device=classes.device) * 2 - 1
    return table[classes].movedim(-1, 1)
