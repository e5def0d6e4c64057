"""Buffers that keep their precision when a module is cast."""

from collections.abc import Callable

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
