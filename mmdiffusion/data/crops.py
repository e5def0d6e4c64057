"""Pictures of any size as squares of one size, in bytes: tensors, antialiased, within two levels of Pillow's resize."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import horizontal_flip, resize

from mmdiffusion.data.pixels import Pixels

Square = UInt8[Tensor, "c size size"]


class Window(NamedTuple):
    """Which part of a picture is shown, at which size: alike for all pictures of a sample.

    Attributes:
        source: Top, left, height and width of the part that is resized, in pixels of the picture.
        resized: Height and width it is resized to.
        cut: Top and left of the square that is kept, in pixels of what was resized.
        size: Side of that square.
        is_flipped: Mirror left and right.
    """

    source: tuple[int, int, int, int]
    resized: tuple[int, int]
    cut: tuple[int, int]
    size: int
    is_flipped: bool

    def __call__(self, pixels: Pixels) -> Square:
        """Show it, by an antialiased bicubic resize: (c, size, size)."""
        return self._show(pixels, InterpolationMode.BICUBIC)

    def classes(self, classes: UInt8[Tensor, "h w"]) -> UInt8[Tensor, "size size"]:
        """Show a map of classes, whose numbers cannot be mixed: the nearest pixel's, (size, size)."""
        return self._show(classes[None], InterpolationMode.NEAREST_EXACT)[0]

    def _show(self, pixels: Pixels, interpolation: InterpolationMode) -> Square:
        top, left, height, width = self.source
        part = pixels[:, top : top + height, left : left + width]
        whole = resize(part, list(self.resized), interpolation, antialias=True)
        top, left = self.cut
        square = whole[:, top : top + self.size, left : left + self.size]
        return (horizontal_flip(square) if self.is_flipped else square).contiguous()


@dataclass(frozen=True)
class Crop:
    """How pictures of any size become squares of one size.

    Not random: the shorter side becomes `size` by one antialiased bicubic step, and the centre is kept, as
    torchvision's Resize and CenterCrop do with Pillow's BICUBIC. OpenAI's ADM halves by box averages first; its
    reference batches were made so, and figures that are compared with them need it.

    Random, as CDCD trains on pictures: a square of the shorter side from the middle quarter of what is left over,
    resized to between `size` and 9/8 of it (no larger than the square), then a random square of `size`.

    Args:
        size: Side of the square in pixels, at least 1.
        random: Whether crops are random.
        flip: Mirror half of the pictures. Not where captions say left and right.
        squash: Resize to a square whatever the shape, so that nothing is cut off, as pix2pix prepares Cityscapes.
    """

    size: int
    random: bool = False
    flip: bool = False
    squash: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: expected at least 1 pixel")

    def __call__(self, pixels: Pixels, generator: torch.Generator) -> Square:
        """Cut and resize one picture.

        Args:
            pixels: (c, h, w) of 0 to 255.
            generator: Source of what is random.

        Returns:
            (c, size, size).
        """
        return self.window(pixels.shape[-2], pixels.shape[-1], generator)(pixels)

    def window(self, height: int, width: int, generator: torch.Generator) -> Window:
        """Choose what is shown of a picture, or of several that belong together.

        Args:
            height: Of the picture in pixels.
            width: Of the picture in pixels.
            generator: Source of what is random; five numbers are drawn, whatever the settings.
        """
        offset, scale, top, left, mirror = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        side, is_flipped = min(height, width), self.flip and mirror < 0.5
        if not self.random:
            resized = (self.size, self.size) if self.squash else (height * self.size // side, width * self.size // side)
            cut = (round((resized[0] - self.size) / 2), round((resized[1] - self.size) / 2))
            return Window((0, 0, height, width), resized, cut, self.size, is_flipped)
        start = [round((length - side) * (3 + 2 * offset) / 8) for length in (height, width)]
        source = (0, 0, height, width) if self.squash else (*start, side, side)
        largest = max(self.size, min(side, self.size * 9 // 8))
        resized = self.size + int(scale * (largest - self.size + 1))
        cut = (int(top * (resized - self.size + 1)), int(left * (resized - self.size + 1)))
        return Window(source, (resized, resized), cut, self.size, is_flipped)
