"""Negatives of CDCD (arXiv 2206.07771): the positive with its order destroyed, or samples of another class."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mmdiffusion.methods.pairs import gather

Tokens = Int[Tensor, "b l"]


class Negatives(NamedTuple):
    """Token sequences that do not belong to the condition.

    Attributes:
        tokens: n sequences for each positive.
        counts: True where a token is compared. A position that holds the positive's own token says nothing about a
            false pair; counting it would push the right token away.
    """

    tokens: Int[Tensor, "b n l"]
    counts: Bool[Tensor, "b n l"]


class NegativeSource(nn.Module, ABC):
    """Where negatives come from.

    Args:
        num_negatives: Negatives for each positive (10 in the paper).
    """

    def __init__(self, num_negatives: int) -> None:
        super().__init__()
        if num_negatives < 1:
            raise ValueError(f"num_negatives is {num_negatives}: expected at least 1")
        self.num_negatives = num_negatives

    @abstractmethod
    def check(self, length: int, num_groups: int | None) -> None:
        """Check, before any work, that negatives can be drawn from such data.

        Args:
            length: Tokens of a sequence.
            num_groups: Number of classes or genres; `None` when the data has none.

        Raises:
            ValueError: naming the setting that does not suit the data.
        """

    def check_batch(self, size: int, num_groups: int) -> None:
        """Check, before any work, that batches are not too small whatever they hold; any size does by default.

        Args:
            size: Samples of the smallest batch.
            num_groups: Number of classes or genres.

        Raises:
            ValueError: if no batch of this size holds enough negatives.
        """

    @abstractmethod
    def forward(self, tokens: Tokens, group: Int[Tensor, " b"] | None, generator: torch.Generator) -> Negatives | None:
        """Draw negatives; `None` while there are too few yet.

        Args:
            tokens: The positives.
            group: Class or genre of each positive; `None` when the data has none.
            generator: Source of every draw.
        """


class IntraNegatives(NegativeSource):
    """The positive in chunks, put in another order in which no chunk keeps its place.

    The public code permutes 8 chunks freely, so that on average one stays where it is. Tokens beyond the last whole
    chunk stay and do not count.

    Args:
        num_negatives: Negatives for each positive (10 in the paper).
        num_chunks: Chunks a sequence is cut into, at least 2 (8 in the public code).
    """

    def __init__(self, num_negatives: int = 10, num_chunks: int = 8) -> None:
        super().__init__(num_negatives)
        if num_chunks < 2:
            raise ValueError(f"num_chunks is {num_chunks}: expected at least 2")
        self.num_chunks = num_chunks

    def check(self, length: int, num_groups: int | None) -> None:
        """A sequence has a token for each chunk; see `NegativeSource`."""
        if self.num_chunks > length:
            raise ValueError(f"num_chunks is {self.num_chunks}: expected at most {length}, the tokens of a sequence")

    def forward(self, tokens: Tokens, group: Int[Tensor, " b"] | None, generator: torch.Generator) -> Negatives:
        """Reorder chunks along a random cycle through all of them; see `NegativeSource`."""
        size, length = tokens.shape
        self.check(length, None)
        chunk = length // self.num_chunks
        shape = (size, self.num_negatives, self.num_chunks)
        order = torch.rand(shape, generator=generator, device=tokens.device).argsort(dim=-1)
        source = torch.empty_like(order).scatter_(-1, order, order.roll(1, dims=-1))
        within = torch.arange(chunk, device=tokens.device)
        place = (source[..., None] * chunk + within).flatten(-2)
        rest = torch.arange(chunk * self.num_chunks, length, device=tokens.device).expand(*shape[:2], -1)
        place = torch.cat([place, rest], dim=-1)
        drawn = tokens[:, None].expand(-1, self.num_negatives, -1).gather(-1, place)
        return Negatives(drawn, drawn != tokens[:, None])


class InterNegatives(NegativeSource):
    """Other samples, of another class: from the batch, and from a bank of the samples seen last.

    Each process draws from its own batch and from one bank of all, the same in every process and part of a checkpoint.

    Args:
        num_negatives: Negatives for each positive (10 in the paper).
        bank_size: Sequences remembered beside the batch; 0 for none.
    """

    bank_tokens: Tensor
    bank_group: Tensor

    def __init__(self, num_negatives: int = 10, bank_size: int = 0) -> None:
        super().__init__(num_negatives)
        if bank_size < 0:
            raise ValueError(f"bank_size is {bank_size}: expected 0 or more")
        self.bank_size = bank_size
        self.register_buffer("bank_tokens", torch.empty(0, 0, dtype=torch.int64))
        self.register_buffer("bank_group", torch.empty(0, dtype=torch.int64))

    def check(self, length: int, num_groups: int | None) -> None:
        """There are other classes; see `NegativeSource`."""
        if num_groups is None:
            raise ValueError("InterNegatives: the data has no label to tell other classes by; use IntraNegatives")

    def check_batch(self, size: int, num_groups: int) -> None:
        """The most frequent class of a batch leaves enough others, at best; see `NegativeSource`."""
        most = size - math.ceil(size / num_groups) + self.bank_size
        if self.num_negatives > most:
            raise ValueError(
                f"num_negatives is {self.num_negatives}: a sample of a batch of {size} with a bank of {self.bank_size} "
                f"has {most} of another class at best; expected as many at least, so ask for fewer, or raise "
                "batch_size, eval_batch_size (the last batch counts) or bank_size"
            )

    def forward(self, tokens: Tokens, group: Int[Tensor, " b"] | None, generator: torch.Generator) -> Negatives | None:
        """Choose among samples of another class, without repetition; see `NegativeSource`."""
        if group is None:
            self.check(tokens.shape[1], None)
        assert group is not None
        has_bank = len(self.bank_group) > 0
        candidates = torch.cat([tokens, self.bank_tokens]) if has_bank else tokens
        groups = torch.cat([group, self.bank_group]) if has_bank else group
        is_other = group[:, None] != groups
        self._remember(tokens, group)
        if not self._has_enough(is_other):
            return None
        keys = torch.rand(is_other.shape, generator=generator, device=tokens.device)
        chosen = keys.masked_fill(~is_other, -1).topk(self.num_negatives, dim=1).indices
        drawn = candidates[chosen]
        return Negatives(drawn, drawn != tokens[:, None])

    def _has_enough(self, is_other: Bool[Tensor, "b m"]) -> bool:
        fewest = int(is_other.sum(1).min())
        if fewest < self.num_negatives and len(self.bank_group) == self.bank_size:
            raise ValueError(
                f"num_negatives is {self.num_negatives}: a sample of this batch has {fewest} of another class in batch "
                "and bank; expected as many at least, so ask for fewer, or raise batch_size or bank_size"
            )
        return fewest >= self.num_negatives

    @torch.no_grad()
    def _remember(self, tokens: Tokens, group: Int[Tensor, " b"]) -> None:
        if self.bank_size == 0 or not self.training:
            return
        tokens, group = gather(tokens), gather(group)
        bank = self.bank_tokens if len(self.bank_group) else tokens[:0]
        self.bank_tokens = torch.cat([tokens, bank])[: self.bank_size].detach().clone()
        self.bank_group = torch.cat([group, self.bank_group])[: self.bank_size].detach().clone()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """A bank in a checkpoint has the size it had reached."""
        for name in ("bank_tokens", "bank_group"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.bank_group.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
