"""Names shared by every room: axis legend, batches, conditions and modality specs.

Axis legend of the shape annotations:

    b  batch            c  channels           h w  height and width (pixels or tokens)
    n  tokens           d  width              m    modalities (one time each)
    k  classes          q  query tokens         f    frames of a motion
    j  joints           s  samples of audio         o    objects of a scene
"""

from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Batch = dict[str, Tensor | list[str]]
"""One batch: modality name to tensor or list of strings.

`image` (b c h w, in [-1, 1]), `label` (b, int64), `caption` (list of b strings), `motion` (b frames joints*3, metres),
`motion_features` (b frames numbers, a motion by other numbers than positions), `video` (b d, what a network makes of a
video), `music` (b samples, mono, in [-1, 1]), `music_tokens` (b n, int64), `attributes` (b o 4, int64: shape, colour,
size and position of the objects of a scene, -1 where there is none), `segmentation` (b h w, int64, 0 the background),
`masked` (b c+1 h w, an image of which a part can be seen, and where), `feature` (b d) and `feature_map` (b c h w), what
a network makes of an image, `picture` (b, int64, the number of a picture that may have several captions), `index` (b,
the sample's number in its split).
Samples drawn by a method come back in the same form.
"""


class Condition(NamedTuple):
    """What the denoiser is told besides the noisy tokens and the time.

    Attributes:
        vector: One vector per sample, added to the time embedding; `None` for none.
        tokens: Context tokens for cross-attention; `None` for none.
        mask: True where a context token counts; `None` counts all.
    """

    vector: Float[Tensor, "b d"] | None = None
    tokens: Float[Tensor, "b n d"] | None = None
    mask: Bool[Tensor, "b n"] | None = None


@dataclass(frozen=True)
class ImageSpec:
    """Images in [-1, 1].

    Args:
        channels: Colour channels: 1 grey, 3 RGB.
        size: Height and width in pixels.
        num_levels: Distinct values of a channel in the source (256 for 8-bit files), the bins of a likelihood.
    """

    channels: int
    size: int
    num_levels: int = 256


@dataclass(frozen=True)
class LabelSpec:
    """One class out of several.

    Args:
        num_classes: Number of classes; labels run from 0 to `num_classes - 1`.
        names: Class names in label order; empty when they have none.
    """

    num_classes: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class NumberSpec:
    """A number that tells things apart, such as which picture a caption belongs to; it has no meaning beside that."""


@dataclass(frozen=True)
class TextSpec:
    """Captions, as Python strings.

    Args:
        max_words: Longest caption in words.
        vocabulary: All words that occur, in a fixed order; empty when any word may.
    """

    max_words: int
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttributesSpec:
    """What the numbers in `attributes` stand for: the objects of a scene and how they look.

    Args:
        num_objects: Most objects of a scene.
        shapes: Names of the shapes, in the order of their numbers, as all that follows.
        colours: Names of the colours.
        palette: Red, green and blue of each colour, 0 to 255.
        sizes: Names of the sizes.
        areas: Area of each size, as a share of the picture.
        positions: Names of the positions.
        centres: Middle of each position from the upper left corner, across and down, as shares of the side.
    """

    num_objects: int
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    sizes: tuple[str, ...]
    areas: tuple[float, ...]
    positions: tuple[str, ...]
    centres: tuple[tuple[float, float], ...]

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Names of the values of each attribute, in the order of the attributes."""
        return self.shapes, self.colours, self.sizes, self.positions


@dataclass(frozen=True)
class SegmentationSpec:
    """A class for each pixel.

    Args:
        names: Class names in the order of their numbers; the first is the background.
        size: Height and width in pixels.
    """

    names: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class FeatureSpec:
    """What a network makes of the data: numbers of about unit variance.

    Args:
        shape: (d,) for one vector a sample, (c, h, w) for a map of vectors.
    """

    shape: tuple[int, ...]


@dataclass(frozen=True)
class MaskedSpec:
    """Images in [-1, 1] of which a part can be seen; hidden pixels are 0, and one more channel is 1 where they are not.

    Args:
        channels: Colour channels, without the one that says what can be seen.
        size: Height and width in pixels.
    """

    channels: int
    size: int


@dataclass(frozen=True)
class MotionSpec:
    """Three-dimensional joint positions in metres: x to the dancer's left, y up, z forward.

    Args:
        num_frames: Frames of a clip.
        num_joints: Joints of a skeleton; a frame has `3 * num_joints` numbers, joint by joint.
        fps: Frames a second.
    """

    num_frames: int
    num_joints: int
    fps: int


@dataclass(frozen=True)
class MotionFeatureSpec:
    """A motion by numbers that are no positions in metres, such as rotations of joints, or joints in a picture.

    Args:
        num_frames: Frames of a clip.
        num_features: Numbers of a frame.
        fps: Frames a second.
    """

    num_frames: int
    num_features: int
    fps: int


@dataclass(frozen=True)
class MusicSpec:
    """Mono audio in [-1, 1].

    Args:
        num_samples: Samples of a clip.
        sample_rate: Samples a second.
    """

    num_samples: int
    sample_rate: int


@dataclass(frozen=True)
class TokenSpec:
    """Tokens of a codec.

    Args:
        num_codes: Size of the codebook; tokens run from 0 to `num_codes - 1`.
        grid: Tokens along each axis.
    """

    num_codes: int
    grid: tuple[int, ...]


Spec = (
    ImageSpec
    | LabelSpec
    | NumberSpec
    | TextSpec
    | AttributesSpec
    | SegmentationSpec
    | FeatureSpec
    | MaskedSpec
    | MotionSpec
    | MotionFeatureSpec
    | MusicSpec
    | TokenSpec
)
DataSpec = dict[str, Spec]
"""Modality name to its description: what a data module offers and a method is built for."""

# A checkpoint names the data its model was built for; these are plain data, safe to read back.
torch.serialization.add_safe_globals(list(get_args(Spec)))
