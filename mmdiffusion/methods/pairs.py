"""The contrastive loss over the images and captions of all processes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
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


class EarlierTexts(nn.Module):
    """Texts of the batches before, of all processes: a queue of further negatives (He et al. 2020, arXiv 1911.05722).

    The tower is frozen, so an embedding does not age, and needs no slowly moving copy of an encoder. The queue is part
    of a checkpoint, and the same in every process.

    Args:
        size: Texts that are held.
        width: Width of an embedding.

    Raises:
        ValueError: if the size is below 1.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"num_earlier is {size}: expected at least 1, or 0 for no earlier captions")
        self.embeddings: Tensor
        self.numbers: Tensor
        self.is_held: Tensor
        self.register_buffer("embeddings", torch.zeros(size, width))
        self.register_buffer("numbers", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("is_held", torch.zeros(size, dtype=torch.bool))

    def push(self, texts: Embeddings, numbers: Int[Tensor, " b"]) -> None:
        """Take texts in, and let go of the oldest.

        Args:
            texts: Their embeddings.
            numbers: One number for each, equal for those that say the same.
        """
        size = len(self.numbers)
        # Not in place: the backward pass still reads the embeddings of before.
        self.embeddings = torch.cat([texts.to(self.embeddings), self.embeddings])[:size]
        self.numbers = torch.cat([numbers, self.numbers])[:size]
        self.is_held = torch.cat([torch.ones_like(numbers, dtype=torch.bool), self.is_held])[:size]


def compare(
    images: Embeddings,
    texts: Embeddings,
    captions: Sequence[str],
    scale: Float[Tensor, ""],
    earlier: EarlierTexts | None = None,
) -> Compared:
    """Compare images and texts, each with those of all processes (Radford et al. 2021, arXiv 2103.00020, Fig. 3).

    The same on any number of processes: the mean of the losses over all of them has the gradient of one process with
    all pairs.

    Args:
        images: Image embeddings of this process's pairs, of length 1.
        texts: Text embeddings, which take no gradient.
        captions: What they say, for telling apart pairs that are no negatives.
        scale: Inverse temperature.
        earlier: Further texts that images are compared with; those of the pairs then join them.
    """
    own = numbers(captions, images.device)
    all_images, all_texts, all_numbers = gather(images), gather(texts), gather(own)
    offset = rank() * len(images)
    logits = scale * images @ all_texts.T
    is_same = own[:, None] == all_numbers
    is_right, num_same = all_numbers[logits.argmax(1)] == own, is_same.sum(1) - 1
    if earlier is not None:
        logits = torch.cat([logits, scale * images @ earlier.embeddings.T], dim=1)
        is_same = torch.cat([is_same, (own[:, None] == earlier.numbers) | ~earlier.is_held], dim=1)
        earlier.push(all_texts.detach(), all_numbers)
    loss = symmetric_info_nce(logits, scale * texts @ all_images.T, offset, is_same)
    return Compared(loss, is_right, num_same)


def gather(x: Float[Tensor, "b d"] | Int[Tensor, "b d"] | Int[Tensor, " b"]) -> Tensor:
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
