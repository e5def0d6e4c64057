"""Buffers that keep their precision when a module is cast."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose own buffers follow it to another device, but not to another floating-point type.

    Training in true half precision casts a whole model, `model.to(torch.bfloat16)`; tables of a schedule and running
    statistics would lose their meaning silently.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffers":
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = self.get_buffer(name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self


def check_table_dtype(dtype: torch.dtype) -> None:
    """Check the precision of tables (derived: near t = 0 and T half precision cannot tell neighbouring steps apart).

    Raises:
        ValueError: if it is neither float32 nor float64.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}: expected torch.float32, or torch.float64 for exact checks")
