"""Scenes of coloured shapes: what an object can be, how it is described, how it is drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mmdiffusion.types import AttributesSpec

SIDE = 32
"""Pixels a side."""

SCENE = AttributesSpec(
    num_objects=2,
    shapes=("circle", "square", "triangle", "diamond", "cross"),
    colours=("red", "green", "blue", "yellow", "magenta", "cyan"),
    palette=((225, 45, 45), (45, 170, 65), (65, 85, 235), (240, 215, 50), (215, 70, 215), (60, 215, 220)),
    sizes=("small", "large"),
    areas=(30 / SIDE**2, 78 / SIDE**2),
    positions=("top left", "top right", "bottom left", "bottom right"),
    centres=((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)),
)
"""All shapes of a size have one area, so that size and shape say nothing of each other."""

ABSENT = -1

_ROOM = torch.tensor([3.0, 1.0])
"""How far an object of each size may be from the middle of its position, pixels either way."""
_STRETCH = 0.05
"""Share by which an object may be wider or narrower than its size says."""
_DARKEST, _LIGHTEST = 25, 100
"""Greys of the background, 0 to 255."""

Coordinates = Float[Tensor, "n h w"]


@dataclass(frozen=True)
class Looks:
    """What no caption tells: b scenes of o objects.

    Args:
        offset: (b, o, 2) from the middle of the position, across and down, in [-1, 1] of the room there is.
        stretch: (b, o) width beside what the size says, in [-1, 1] of the most there is.
        shade: (b,) grey of the background, in [0, 1] from the darkest to the lightest.
    """

    offset: Float[Tensor, "b o 2"]
    stretch: Float[Tensor, "b o"]
    shade: Float[Tensor, " b"]


def describe(attributes: Int[Tensor, "b o 4"]) -> list[str]:
    """Captions that name the objects in their order: "a small red cross at the top left and a ...".

    Args:
        attributes: (b, o, 4) shape, colour, size and position; absent objects come last.
    """
    return [" and ".join(_phrase(*thing) for thing in scene if thing[0] != ABSENT) for scene in attributes.tolist()]


def _phrase(shape: int, colour: int, size: int, position: int) -> str:
    name = f"{SCENE.sizes[size]} {SCENE.colours[colour]} {SCENE.shapes[shape]}"
    return f"a {name} at the {SCENE.positions[position]}"


def draw(attributes: Int[Tensor, "b o 4"], looks: Looks) -> tuple[UInt8[Tensor, "b 3 h w"], UInt8[Tensor, "b h w"]]:
    """Paint scenes.

    Args:
        attributes: (b, o, 4) shape, colour, size and position, -1 where there is no object.
        looks: Everything else.

    Returns:
        (b, 3, 32, 32) pictures with smooth edges, 0 to 255, and (b, 32, 32) segmentation: 0 for the background,
        1 + shape where an object covers half of a pixel or more.
    """
    grey = _DARKEST + (_LIGHTEST - _DARKEST) * looks.shade
    image = grey[:, None, None, None].expand(-1, 3, SIDE, SIDE)
    segmentation = torch.zeros(len(attributes), SIDE, SIDE, dtype=torch.int64)
    palette = torch.tensor(SCENE.palette).float()
    for i, thing in enumerate(attributes.unbind(1)):
        coverage = _coverage(thing, looks.offset[:, i], looks.stretch[:, i])
        shape, colour = thing[:, :2].T
        image = torch.lerp(image, palette[colour][:, :, None, None].expand_as(image), coverage[:, None])
        segmentation = torch.where(coverage >= 0.5, shape[:, None, None] + 1, segmentation)
    return image.round().to(torch.uint8), segmentation.to(torch.uint8)


def _coverage(
    thing: Int[Tensor, "b 4"], offset: Float[Tensor, "b 2"], stretch: Float[Tensor, " b"]
) -> Float[Tensor, "b h w"]:
    """Share of each pixel that an object covers; 0 for an absent one.

    An edge is as wide as a pixel: the coverage falls from 1 to 0 with the distance of the pixel's middle.
    """
    coverage = torch.zeros(len(thing), SIDE, SIDE)
    for number, distance in enumerate(_DISTANCES):
        rows = (thing[:, 0] == number).nonzero().flatten()
        size, position = thing[rows, 2:].T
        middle = torch.tensor(SCENE.centres)[position] * SIDE + _ROOM[size, None] * offset[rows]
        side = torch.tensor(SCENE.areas)[size].sqrt() * SIDE * (1 + _STRETCH * stretch[rows])
        pixel = torch.arange(SIDE) + 0.5
        x = (pixel - middle[:, :1])[:, None, :].expand(-1, SIDE, -1)
        y = (pixel - middle[:, 1:])[:, :, None].expand(-1, -1, SIDE)
        coverage[rows] = (0.5 - distance(x, y, side[:, None, None])).clamp(0, 1)
    return coverage


# Distances from the edge in pixels, negative inside, of shapes with the area `side`**2 and the middle of their bounding
# box at the origin; beyond a corner, the distance from the nearest edge's line.


def _circle(x: Coordinates, y: Coordinates, side: Tensor) -> Coordinates:
    return torch.hypot(x, y) - side / math.sqrt(math.pi)


def _square(x: Coordinates, y: Coordinates, side: Tensor) -> Coordinates:
    return torch.maximum(x.abs(), y.abs()) - side / 2


def _triangle(x: Coordinates, y: Coordinates, side: Tensor) -> Coordinates:
    half = side / math.sqrt(2)  # of the base, and of the height
    flank = (x.abs() - (y + half) / 2) / math.sqrt(1.25)
    return torch.maximum(flank, y - half)


def _diamond(x: Coordinates, y: Coordinates, side: Tensor) -> Coordinates:
    return (x.abs() + y.abs()) / math.sqrt(2) - side / 2


def _cross(x: Coordinates, y: Coordinates, side: Tensor) -> Coordinates:
    half = side * 1.5 / math.sqrt(5)  # of the length; arms are a third of it wide
    across = torch.maximum(x.abs() - half, y.abs() - half / 3)
    return torch.minimum(across, torch.maximum(x.abs() - half / 3, y.abs() - half))


_DISTANCES: tuple[Callable[[Coordinates, Coordinates, Tensor], Coordinates], ...] = (
    *(_circle, _square),
    *(_triangle, _diamond, _cross),
)
"""In the order of `SCENE.shapes`."""
