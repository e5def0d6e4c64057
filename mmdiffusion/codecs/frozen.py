"""Trained networks as first stages, which belong to no model that uses them."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.types import TokenSpec


class FrozenNetwork(nn.Module):
    """Holds a trained network that is no submodule: always in evaluation mode, and never cast by a trainer's precision.

    State dicts, averages, optimizers, gradients and process groups do not know of it. It moves with its holder, to
    another device or another type.
    """

    network: Any

    def hold(self, network: nn.Module) -> None:
        """Freeze a network and keep it."""
        object.__setattr__(self, "network", network.requires_grad_(False).eval())  # past the register of submodules

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights."""
        return next(self.network.parameters()).dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenNetwork":
        """Take the network along: every move of a module, and of the model it is part of, comes by here."""
        super()._apply(fn, recurse)
        self.network._apply(fn, recurse)
        return self


class FrozenCodec(FrozenNetwork, TokenCodec):
    """A trained network as a codec of tokens.

    Args:
        network: What encodes and decodes.
        latent: The tokens.
        source: Entry of a batch that is encoded, and made again.
    """

    def __init__(self, network: nn.Module, latent: TokenSpec, source: str) -> None:
        super().__init__(latent, source)
        self.hold(network)

    @abstractmethod
    def to_tokens(self, data: Float[Tensor, "b ..."]) -> Int[Tensor, "b *grid"]:
        """Tokens of data, by the network.

        Args:
            data: The modality, in [-1, 1].
        """

    @abstractmethod
    def to_data(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b ..."]:
        """What tokens stand for, by the network; clamped afterwards.

        Args:
            tokens: Tokens, checked.
        """

    @torch.no_grad()
    def encode(self, data: Float[Tensor, "b ..."]) -> Int[Tensor, "b *grid"]:
        """Tokens; see `TokenCodec`. The precision of the trainer does not change them.

        Raises:
            ValueError: if the data is not of the size that the codec was built for.
        """
        with torch.autocast(data.device.type, enabled=False):
            return self.to_tokens(data.to(self.dtype))

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b ..."]:
        """The modality in [-1, 1], float32; see `TokenCodec`."""
        self.check(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.to_data(tokens).float().clamp(-1, 1)
