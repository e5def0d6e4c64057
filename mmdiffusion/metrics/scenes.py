"""Does a picture of coloured shapes show what its caption says? Rules read the picture; nothing is trained."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.metrics.features import as_stored
from mmdiffusion.metrics.judge import Accuracy
from mmdiffusion.types import AttributesSpec, DataSpec

Part = Literal["all", "shape", "colour", "size", "position", "layout"]
PARTS: dict[Part, tuple[int, ...]] = {
    "all": (0, 1, 2, 3),
    "shape": (0,),
    "colour": (1,),
    "size": (2,),
    "position": (3,),
    "layout": (0, 2, 3),
}
"""Columns of an object's attributes; the layout is what a map of shapes tells: all but the colour."""

OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: x**2 + y**2 < 1 / math.pi,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) < 0.5,
    "triangle": lambda x, y: (y < math.sqrt(2) / 3) & (2 * x.abs() < y + math.sqrt(8) / 3),
    "diamond": lambda x, y: x.abs() + y.abs() < math.sqrt(0.5),
    "cross": lambda x, y: (
        (torch.maximum(x.abs(), y.abs()) < 1.5 / math.sqrt(5)) & (torch.minimum(x.abs(), y.abs()) < 0.5 / math.sqrt(5))
    ),
}
"""Insides of the shapes that are known: area 1, centre of gravity at the origin, y downwards; a triangle stands on its
base and is as high as it is wide, a cross is made of five squares."""

_SPECK = 1 / 3
"""Share of the smallest size below which a patch of colour is no object."""
_PATCH, _REACH, _FINE = 24, 1.05, 8
"""Points a side on which shapes are compared, how far they reach from the centre, and finer points for an outline."""
_BLURS = (0.0, 0.1, 0.2)
"""Standard deviations of the Gaussians by which an outline may be blurred, in sides of a square of its area."""


class Blobs(NamedTuple):
    """Connected patches of one colour, n of them.

    Attributes:
        scene: (n,) which picture each is in.
        colour: (n,) its colour.
        cover: (n, h, w) share of each pixel that it covers, as the pixel's colour tells.
    """

    scene: Int[Tensor, " n"]
    colour: Int[Tensor, " n"]
    cover: Float[Tensor, "n h w"]


class SceneReader:
    """Reads the objects of a scene off its pixels.

    The background is the median colour. A pixel is a mixture of the background and the colour of the palette that
    explains it best; where that colour has more than half, pixels that touch make a patch. A patch is as large as its
    shares add up to, stands where its centre of gravity is, and has the shape whose outline of the same area and
    centre, sharp or blurred, it differs from least (squared). Patches below a third of the smallest size are specks.
    Derived.

    A reader knows the shapes by their geometry and shares no code with what draws them.

    Args:
        spec: Names, palette, areas and places that there are.

    Raises:
        ValueError: if a shape is none of those the reader knows.
    """

    name = "scene-reader"

    def __init__(self, spec: AttributesSpec) -> None:
        for shape in spec.shapes:
            if shape not in OUTLINES:
                raise ValueError(f"shapes has {shape!r}: expected some of {', '.join(OUTLINES)}")
        self.spec = spec
        self.palette = torch.tensor(spec.palette) / 127.5 - 1
        self.templates = torch.stack([_templates(shape) for shape in spec.shapes])

    def read(self, images: Float[Tensor, "b 3 h w"]) -> list[list[tuple[int, ...]]]:
        """Objects of each scene, in no particular order.

        Args:
            images: (b, 3, h, w) in [-1, 1]; rounded to 8 bits first.

        Returns:
            For each scene its objects as (shape, colour, size, position), any number of them.
        """
        blobs = self._blobs(as_stored(images.cpu()))
        area, centre = _area(blobs.cover), _centre(blobs.cover)
        size = (area[:, None] / torch.tensor(self.spec.areas)).log().abs().argmin(1)
        position = torch.cdist(centre, torch.tensor(self.spec.centres)).argmin(1)
        found = torch.stack([self._shape(blobs.cover, area, centre), blobs.colour, size, position], dim=1)
        scenes: list[list[tuple[int, ...]]] = [[] for _ in images]
        for scene, thing in zip(blobs.scene.tolist(), found.tolist(), strict=True):
            scenes[scene].append(tuple(thing))
        return scenes

    def _blobs(self, images: Float[Tensor, "b 3 h w"]) -> Blobs:
        cover, is_best = self._mixtures(images)
        in_plane = np.zeros((3, 3, 3, 3), dtype=bool)
        in_plane[1, 1] = True  # pixels touch within a scene and a colour, at corners as well
        patches: np.ndarray = ndimage.label((is_best & (cover > 0.5)).numpy(), in_plane)[0]  # pyright: ignore
        places = np.nonzero(patches)
        numbers, first, counts = np.unique(patches[places], return_index=True, return_counts=True)
        kept = counts >= _SPECK * min(self.spec.areas) * images.shape[2:].numel()
        scene, colour = (torch.from_numpy(axis[first][kept]) for axis in places[:2])
        is_inside = torch.from_numpy(patches)[scene, colour] == torch.from_numpy(numbers[kept])[:, None, None]
        with_edge = F.max_pool2d(is_inside[:, None].float(), 3, stride=1, padding=1)[:, 0]
        return Blobs(scene, colour, cover[scene, colour] * with_edge)

    def _mixtures(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b k h w"], Bool[Tensor, "b k h w"]]:
        """Share of each of k colours in each pixel, were it mixed with the background; and which explains it best."""
        background = images.flatten(2).median(dim=2).values
        contrast = self.palette - background[:, None]
        strangeness = images - background[:, :, None, None]
        square = contrast.square().sum(2).clamp(min=1e-6)  # 0 where the background has a colour of the palette
        share = torch.einsum("bchw,bkc->bkhw", strangeness, contrast) / square[:, :, None, None]
        mixed = share.clamp(0, 1)[:, :, None] * contrast[..., None, None]
        error = (strangeness[:, None] - mixed).square().sum(2)
        return share, error == error.amin(dim=1, keepdim=True)

    def _shape(
        self, cover: Float[Tensor, "n h w"], area: Float[Tensor, " n"], centre: Float[Tensor, "n 2"]
    ) -> Int[Tensor, " n"]:
        """Nearest outline once a patch has area 1 and its centre at the origin."""
        reach = 2 * area.sqrt()[:, None] * _line()
        across, down = (middle[:, None] + reach for middle in (2 * centre - 1).unbind(1))
        across, down = torch.broadcast_tensors(across[:, None, :], down[:, :, None])
        grid = torch.stack([across, down], dim=-1)
        patch = F.grid_sample(cover[:, None], grid, align_corners=False)
        error = (patch[:, :, None] - self.templates).square().sum((3, 4))
        return error.amin(2).argmin(1)

    def signature(self) -> str:
        """How it reads, for the protocol of a result."""
        return f"{self.name}: nearest palette colour, connected patches, area, centre, nearest outline; 8-bit input"


def _area(cover: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of the picture."""
    return cover.mean((1, 2))


def _centre(cover: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """Centre of gravity from the upper left corner, across and down, as shares of the side."""
    height, width = cover.shape[1:]
    across, down = ((torch.arange(size) + 0.5) / size for size in (width, height))
    total = cover.sum((1, 2))
    return torch.stack([(cover.sum(1) * across).sum(1) / total, (cover.sum(2) * down).sum(1) / total], dim=1)


def _line(fine: int = 1) -> Float[Tensor, " p"]:
    """Places along one axis at which shapes of area 1 are compared, or as many times finer."""
    number = _PATCH * fine
    return ((torch.arange(number) + 0.5) / number * 2 - 1) * _REACH


def _templates(shape: str) -> Float[Tensor, "blurs p p"]:
    """A shape of area 1 on the points where shapes are compared, sharp and blurred."""
    y, x = torch.meshgrid(_line(_FINE), _line(_FINE), indexing="ij")
    sharp = OUTLINES[shape](x, y).float().numpy()
    points_per_side = _PATCH * _FINE / (2 * _REACH)
    blurred = [ndimage.gaussian_filter(sharp, blur * points_per_side) for blur in _BLURS]
    return F.avg_pool2d(torch.from_numpy(np.stack(blurred)), _FINE)


class CaptionAccuracy(Accuracy):
    """Share of scenes that show all that their caption says and no further object, higher is better.

    A reader that sees the picture alone says what is in it; the objects are compared as a set with those of the
    caption. With a part, only this attribute of every object is compared: a red circle and a blue square drawn as a
    blue circle and a red square have the right colours and the right shapes, and are wrong altogether.

    The upper bound is the reader's own accuracy on real scenes.

    Args:
        part: The attribute that is compared; "all" for all four at once, "layout" for all but the colour.
        entry: Name of the batch entry that is read: "image", or "reconstruction" to judge a first stage.

    Raises:
        ValueError: if `part` is another.
    """

    def __init__(self, part: Part = "all", entry: str = "image") -> None:
        super().__init__()
        if part not in PARTS:
            raise ValueError(f"part is {part!r}: expected one of {', '.join(PARTS)}")
        self.part: Part = part
        self.inputs = (entry, "reference_attributes")
        self.reader: SceneReader | None = None

    def name(self) -> str:
        """`caption_accuracy[scene-reader]`, or `colour_accuracy[scene-reader]` for a part."""
        return f"{'caption' if self.part == 'all' else self.part}_accuracy[{SceneReader.name}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Reader, what was compared, and the count behind the last value."""
        reader = "none" if self.reader is None else self.reader.signature()
        return {"reader": reader, "part": self.part, "entry": self.inputs[0], "num_samples": self.num_samples}

    def describe(self, spec: DataSpec) -> None:
        """Tell the reader what there is to read.

        Raises:
            ValueError: if the data has no attributes.
        """
        attributes = spec.get("attributes")
        if not isinstance(attributes, AttributesSpec):
            raise ValueError(
                f"{self.name()}: spec has {', '.join(spec)}, expected data with attributes, such as Shapes"
            )
        self.reader = SceneReader(attributes)

    def update(self, image: Float[Tensor, "b 3 h w"], attributes: Int[Tensor, "b o 4"]) -> None:
        """Add pictures (b, 3, h, w) in [-1, 1] and the objects (b, o, 4) they should show, -1 for an absent one.

        Raises:
            ValueError: before `describe`.
        """
        if self.reader is None:
            raise ValueError(f"{self.name()}: expected describe(spec) first; it tells the reader what there is")
        part = PARTS[self.part]
        told = [[tuple(thing) for thing in scene if thing[0] >= 0] for scene in attributes.tolist()]
        pairs = zip(self.reader.read(image), told, strict=True)
        right = [chosen(seen, part) == chosen(said, part) for seen, said in pairs]
        self.count(torch.tensor(right, dtype=torch.bool), torch.ones(len(right), dtype=torch.bool))


def chosen(objects: list[tuple[int, ...]], part: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Some attributes of objects, as a set that may hold one thing twice (derived: sorting)."""
    return sorted(tuple(thing[column] for column in part) for thing in objects)
