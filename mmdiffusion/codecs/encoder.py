"""Frozen weights that encode an entry of a batch: at every step, or once for a cache."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmdiffusion.types import Batch


class Encoder(nn.Module, ABC):
    """Turns an entry of a batch into one or several parts, which a cache may hold as `<entry>.<part>`.

    Attributes:
        reads: Entry of a batch that is encoded.
        replaces: Whether a training that has the parts needs the entry itself no more.
        is_plain: Whether the data are their own encoding, so that a cache holds the entry itself.
    """

    reads: str
    replaces: ClassVar[bool] = True
    is_plain: ClassVar[bool] = False

    @abstractmethod
    def parts(self, values: Any) -> dict[str, Tensor]:
        """The parts of an entry, by name.

        Args:
            values: The entry as a batch holds it.
        """

    def stored(self, batch: Batch) -> dict[str, Tensor]:
        """What a cache holds of the entry, by name in a batch."""
        return {f"{self.reads}.{part}": values for part, values in self.parts(batch[self.reads]).items()}

    def of(self, batch: Batch) -> dict[str, Any]:
        """The parts of a batch: those that it brings from a cache, or else those encoded now.

        Raises:
            ValueError: if it has neither them nor the entry itself.
        """
        start = f"{self.reads}."
        found = {name.removeprefix(start): values for name, values in batch.items() if name.startswith(start)}
        if not found and self.reads not in batch:
            raise ValueError(f"a batch has {', '.join(batch)}: expected {self.reads} as well, which is encoded")
        return found or self.parts(batch[self.reads])

    def identity(self) -> str:
        """First 16 digits of a SHA-256 of class, settings and weights: encoders that have the same encode alike.

        Where weights are from is no part of it.
        """
        digest = hashlib.sha256(type(self).__qualname__.encode())
        for name, value in sorted(vars(self).items()):
            if not name.startswith("_") and name not in ("training", "source") and _is_setting(value):
                digest.update(f"{name}={value!r};".encode())
        for name, tensor in _tensors(self):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


def _is_setting(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, bool | int | float | str) or is_dataclass(value)


def _tensors(encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    """Weights of an encoder, and of a network that it holds past the register of submodules."""
    for module in (encoder, getattr(encoder, "network", None)):
        if isinstance(module, nn.Module):
            yield from sorted(chain(module.named_parameters(), module.named_buffers()), key=lambda named: named[0])
