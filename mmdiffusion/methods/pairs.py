"""The contrastive loss over the images and captions of all processes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn.functional import all_gather

from mmdiffusion.losses import symmetric_info_nce
from mmdiffusion.seeding import text_number

Embeddings = Float[Tensor, "b d"]


class Compared(NamedTuple):
    """How each image of this process compares.

    Attributes:
        loss: Contrastive loss of its pair, nats.
        is_right: Whether its own caption is the nearest.
        num_same: Other pairs with the same caption, which are no negatives.
    """

    loss: Float[Tensor, " b"]
    is_right: Bool[Tensor, " b"]
    num_same: Int[Tensor, " b"]


def compare(images: Embeddings, texts: Embeddings, captions: Sequence[str], scale: Float[Tensor, ""]) -> Compared:
    """Compare images and texts, each with those of all processes (Radford et al. 2021, arXiv 2103.00020, Fig. 3).

    The same on any number of processes: the mean of the losses over all of them has the gradient of one process with
    all pairs.

    Args:
        images: Image embeddings of this process's pairs, of length 1.
        texts: Text embeddings, which take no gradient.
        captions: What they say, for telling apart pairs that are no negatives.
        scale: Inverse temperature.
    """
    own = numbers(captions, images.device)
    all_images, all_texts, all_numbers = gather(images), gather(texts), gather(own)
    offset = rank() * len(images)
    logits = scale * images @ all_texts.T
    is_same = own[:, None] == all_numbers
    loss = symmetric_info_nce(logits, scale * texts @ all_images.T, offset, is_same)
    is_right = all_numbers[logits.argmax(1)] == own
    return Compared(loss, is_right, is_same.sum(1) - 1)


def gather(x: Float[Tensor, "b d"] | Int[Tensor, " b"]) -> Tensor:
    """The tensors of all processes one after the other, with their gradient; as many rows on each."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return torch.cat(list(all_gather(x.contiguous())))


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def numbers(captions: Sequence[str], device: torch.device) -> Int[Tensor, " b"]:
    """One number for each caption: equal for captions that say the same, blanks and capitals aside."""
    return torch.tensor([text_number(caption) for caption in captions], device=device)
