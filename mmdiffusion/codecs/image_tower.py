"""Image towers: images as vectors in the space of a text tower, by nothing that trains."""

import json
from abc import abstractmethod
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.codecs.frozen import FrozenNetwork
from mmdiffusion.codecs.pretrained import check_folder, load, needs

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of CLIP's training images (Radford et al. 2021, arXiv 2103.00020, released code)."""


class ImageTower(Encoder):
    """A frozen reader of images.

    Args:
        summary_width: Width of an image's vector.
        source: Where it is from, for the protocol of a result.
    """

    reads = "image"
    replaces = False

    def __init__(self, summary_width: int, source: str) -> None:
        super().__init__()
        self.summary_width, self.source = summary_width, source

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Read images in [-1, 1]: vectors of length 1."""

    def parts(self, values: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """`summary` (b e), the vectors."""
        return {"summary": self(values)}


class CLIPImageTower(FrozenNetwork, ImageTower):
    """The image tower of CLIP (Radford et al. 2021, arXiv 2103.00020), by transformers.

    Images are resized so that their shorter side is the tower's, bicubic with antialias, cut in the middle to a square,
    and normalised by the folder's own mean and deviation, or CLIP's where it names none.

    Args:
        path: Folder with weights, such as a download of `openai/clip-vit-base-patch32`; the image tower alone, with its
            projection, will do.

    Raises:
        ValueError: if there are no weights at `path`.
    """

    def __init__(self, path: str) -> None:
        try:
            from transformers import CLIPVisionModelWithProjection
        except ImportError as error:
            raise needs("pretrained", "transformers", error) from error

        check_folder(path, "model_type", ("clip", "clip_vision_model"), "openai/clip-vit-base-patch32")
        network = load(CLIPVisionModelWithProjection, path)
        super().__init__(network.config.projection_dim, Path(path).name)
        self.side = network.config.image_size
        self.mean, self.std = colours(path)
        self.hold(network)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Read images; see `ImageTower`. Grey ones have three equal channels."""
        device = self.network.visual_projection.weight.device
        pixels = (crop(images.to(device).float().expand(-1, 3, -1, -1), self.side) + 1) / 2
        mean, std = (torch.tensor(part, device=device)[:, None, None] for part in (self.mean, self.std))
        with torch.autocast(device.type, enabled=False):
            summary = self.network((pixels - mean) / std).image_embeds
        return F.normalize(summary.float(), dim=-1)


def crop(images: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c s s"]:
    """Resize the shorter side, bicubic with antialias and clamped to [-1, 1], and keep the square in the middle."""
    height, width = images.shape[-2:]
    size = [max(side, round(length * side / min(height, width))) for length in (height, width)]
    resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    top, left = ((length - side) // 2 for length in size)
    return resized[..., top : top + side, left : left + side]


def colours(path: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of colours in [0, 1], as a folder's `preprocessor_config.json` says.

    Raises:
        ValueError: if the file is there and does not hold three numbers of each.
    """
    file = Path(path) / "preprocessor_config.json"
    if not file.is_file():
        return MEAN, STD
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        found = [tuple(float(x) for x in settings[name]) for name in ("image_mean", "image_std")]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"path is {path}: expected image_mean and image_std in {file}; {error!r}") from error
    if [len(part) for part in found] != [3, 3]:
        raise ValueError(f"path is {path}: image_mean and image_std are {found}, expected three numbers each")
    return found[0], found[1]
