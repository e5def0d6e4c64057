"""Selective recomputation: what is cheap is made again on the way back, not kept (Korthikanti et al. 2022, 2205.05198).

Products and attention keep what they read. Where that is made of something they keep anyway by a normalisation, a
modulation or a GELU, it can be made a second time for little, and it is most of what a block keeps.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Result = TypeVar("Result")

_is_on: ContextVar[bool] = ContextVar("is_on", default=False)


def recomputing(enabled: bool) -> AbstractContextManager[None]:
    """Within it `recomputed` keeps nothing of what it makes.

    torch.compile decides by itself what to make again, and is not interfered with.

    Args:
        enabled: Whether that is so; if not, nothing changes.
    """
    return _turned_on() if enabled and not torch.compiler.is_compiling() else nullcontext()


@contextmanager
def _turned_on() -> Iterator[None]:
    token = _is_on.set(True)
    try:
        yield
    finally:
        _is_on.reset(token)


def recomputed(make: Callable[[], Tensor], use: Callable[[Tensor], Result]) -> Result:
    """use(make()); within `recomputing`, what operators in `use` would keep of that tensor is made again in its time.

    Gradients are the same to the bit.

    Args:
        make: Makes a tensor, always the same, of others that stay as they are until the way back is done; bind them
            by `functools.partial`, as a closure would see names that are given to other tensors.
        use: What is done with it.
    """
    made = make()
    if torch.compiler.is_compiling() or not (_is_on.get() and torch.is_grad_enabled()):
        return use(made)
    recipe = _Recipe(make, made)
    with saved_tensors_hooks(recipe.pack, _unpack):
        return use(made)


def in_precision_of_products(x: Tensor) -> Tensor:
    """What autocast makes of a product's input: a product keeps the very tensor then, and no copy in less precision."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


class _View(NamedTuple):
    """What an operator would have kept: a view of what a recipe makes."""

    recipe: "_Recipe"
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class _Recipe:
    """How a tensor is made, once for all who ask on one way back.

    Args:
        make: Makes it.
        made: What it made.
    """

    def __init__(self, make: Callable[[], Tensor], made: Tensor) -> None:
        self.make, self.storage = make, made.untyped_storage()._cdata
        self.as_then = _autocast_of_now(made.device.type)
        self.made: Tensor | None = None
        self.num_kept = self.num_asked = 0

    def pack(self, kept: Tensor) -> Any:
        """What is kept in place of a tensor: itself, unless it is what was made."""
        if kept.untyped_storage()._cdata != self.storage:
            return kept
        self.num_kept += 1
        return _View(self, tuple(kept.shape), kept.stride(), int(kept.storage_offset()))

    def ask(self) -> Tensor:
        """The tensor, which is let go of when as many have asked as would have kept it."""
        if self.made is None:
            with torch.no_grad(), self.as_then():
                self.made = self.make()
        made, self.num_asked = self.made, self.num_asked + 1
        if self.num_asked % self.num_kept == 0:
            self.made = None
        return made


def _unpack(kept: Any) -> Tensor:
    if not isinstance(kept, _View):
        return kept
    return kept.recipe.ask().as_strided(kept.shape, kept.strides, kept.offset)


def _autocast_of_now(device: str) -> Callable[[], AbstractContextManager[Any]]:
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    precision, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype=precision, enabled=enabled)
