"""Images of which a part is hidden: what is restored, and what training draws."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Image = Float[Tensor, "b c h w"]


class PatchMask:
    """Hides square patches at random places, which may overlap; some images are hidden altogether.

    MT-Diffusion hides 0 to 10 patches of 16 x 16 pixels (arXiv 2407.17571, Sec. 5). That hardly ever hides all of an
    image, which is what drawing from nothing needs, so a share is hidden whole (ours).

    Args:
        patch_size: Pixels a side of a patch, at least 1.
        max_patches: Most patches; their number is uniform from 0.
        complete_share: Share of images that are hidden altogether.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(self, patch_size: int = 16, max_patches: int = 10, complete_share: float = 0.15) -> None:
        if patch_size < 1 or max_patches < 0:
            raise ValueError(
                f"patch_size is {patch_size}, max_patches is {max_patches}: expected at least 1 and at least 0"
            )
        if not 0 <= complete_share <= 1:
            raise ValueError(f"complete_share is {complete_share}: expected 0 to 1")
        self.patch_size, self.max_patches, self.complete_share = patch_size, max_patches, complete_share

    def __call__(self, image: Image, generator: torch.Generator) -> Float[Tensor, "b masked h w"]:
        """Hide parts of images.

        Args:
            image: Whole images.
            generator: Source of numbers and places.

        Returns:
            The images with 0 where they are hidden, and one more channel: 1 where they can be seen.
        """
        size, (height, width) = len(image), image.shape[-2:]
        self.check((height, width))
        draw = {"generator": generator, "device": image.device}
        number = torch.randint(0, self.max_patches + 1, (size,), **draw)
        top = torch.randint(0, height - self.patch_size + 1, (size, self.max_patches), **draw)
        left = torch.randint(0, width - self.patch_size + 1, (size, self.max_patches), **draw)
        is_complete = torch.rand(size, **draw) < self.complete_share
        is_there = torch.arange(self.max_patches, device=image.device) < number[:, None]
        patches = squares(top, left, self.patch_size, (height, width))
        hidden = (patches & is_there[..., None, None]).any(1)
        return hide(image, hidden | is_complete[:, None, None])

    def check(self, size: tuple[int, int]) -> None:
        """Check that a patch fits into an image.

        Args:
            size: Height and width of the image.

        Raises:
            ValueError: if it does not.
        """
        if self.patch_size > min(size):
            raise ValueError(f"patch_size of the mask is {self.patch_size}: expected at most the image's {min(size)}")


def squares(
    top: Int[Tensor, "b m"], left: Int[Tensor, "b m"], patch_size: int, size: tuple[int, int]
) -> Bool[Tensor, "b m h w"]:
    """Which pixels each of several squares covers.

    Args:
        top: First row of each.
        left: First column of each.
        patch_size: Pixels a side.
        size: Height and width of the image.
    """
    rows, columns = (covered(start, patch_size, length) for start, length in zip((top, left), size, strict=True))
    return rows[..., :, None] & columns[..., None, :]


def covered(start: Int[Tensor, "b m"], length: int, size: int) -> Bool[Tensor, "b m n"]:
    """Which of `size` places intervals cover.

    Args:
        start: First place of each interval.
        length: Places of each.
        size: Places.
    """
    place = torch.arange(size, device=start.device)
    return (place >= start[..., None]) & (place < start[..., None] + length)


def hide(image: Image, hidden: Bool[Tensor, "b h w"]) -> Float[Tensor, "b masked h w"]:
    """Images with 0 where they are hidden, and one more channel: 1 where they can be seen.

    Args:
        image: Whole images.
        hidden: Which pixels are not to be seen.
    """
    visible = (~hidden)[:, None].to(image.dtype)
    return torch.cat([image * visible, visible], dim=1)


def hide_share(image: Image, patch_size: int, share: float, order: Float[Tensor, "b patches"]) -> Tensor:
    """Hide a fixed share of the patches that tile an image.

    Args:
        image: Whole images, their side a multiple of `patch_size`.
        patch_size: Pixels a side of a patch.
        share: Share of the patches, rounded to whole ones.
        order: A number for each patch, row by row: those with the smallest are hidden.
    """
    rows, columns = (length // patch_size for length in image.shape[-2:])
    number = round(share * rows * columns)
    hidden = order.argsort(1).argsort(1) < number
    hidden = hidden.unflatten(1, (rows, columns)).repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)
    return hide(image, hidden)


def hide_patches(image: Image, patch_size: int, places: Float[Tensor, "b m 2"]) -> Float[Tensor, "b masked h w"]:
    """Hide a fixed number of square patches, which may overlap.

    Args:
        image: Whole images.
        patch_size: Pixels a side of a patch, at most the image's.
        places: Where each is, down and across, as shares in [0, 1) of the room there is.
    """
    height, width = image.shape[-2:]
    room = torch.tensor([height - patch_size + 1, width - patch_size + 1], device=image.device)
    top, left = (places * room).long().unbind(-1)
    return hide(image, squares(top, left, patch_size, (height, width)).any(1))


def paste(image: Image, masked: Float[Tensor, "b masked h w"]) -> Image:
    """Restored images, with what could be seen put back exactly.

    Args:
        image: Restored images.
        masked: What was known of them, as from `hide`.
    """
    return torch.where(masked[:, -1:] > 0, masked[:, :-1], image)
