"""Images as the denoiser meets them: patches, one token each."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "b c h w"]


def patchify(image: Image, patch_size: int) -> Float[Tensor, "b rows columns d"]:
    """Cut images into square patches, one token each, channels last."""
    return rearrange(image, "b c (h i) (w j) -> b h w (c i j)", i=patch_size, j=patch_size)


def unpatchify(tokens: Float[Tensor, "b rows columns d"], patch_size: int) -> Image:
    """Inverse of `patchify`."""
    return rearrange(tokens, "b h w (c i j) -> b c (h i) (w j)", i=patch_size, j=patch_size)
