"""Many strings in two tensors: a million captions cost their bytes, and workers share them."""

from array import array
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


class Strings(Sequence[str]):
    """Strings that are kept as one row of bytes, and where each ends.

    In a list each string is an object, and looking at it writes its count of references: a worker that was forked ends
    up with a copy of all pages. These tensors are only read, so forked workers share them; workers that were started in
    another way are handed them in shared memory.

    Args:
        data: UTF-8 of all strings, one behind the other; what is no UTF-8 in a file name is kept as it is.
        ends: Where each ends.
    """

    def __init__(self, data: UInt8[Tensor, " bytes"], ends: Int[Tensor, " n"]) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        """Strings of an iterable, which is gone through once."""
        collector = Collector()
        for text in texts:
            collector.append(text)
        return collector.strings()

    def __len__(self) -> int:
        """Number of strings."""
        return len(self.ends)

    def __getitem__(self, row: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        """One string."""
        if not 0 <= row < len(self.ends):
            raise IndexError(row)
        start = int(self.ends[row - 1]) if row else 0
        return self.data[start : int(self.ends[row])].numpy().tobytes().decode("utf-8", "surrogateescape")

    @property
    def num_bytes(self) -> int:
        """Bytes that they take in memory."""
        return self.data.nbytes + self.ends.nbytes


class Collector:
    """Collects strings one by one, without an object for each."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        """Add a string.

        Args:
            text: Any string but one with halves of characters that UTF-8 does not have.
        """
        self.data += text.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.data))

    def __len__(self) -> int:
        """Number of strings so far."""
        return len(self.ends)

    def strings(self) -> Strings:
        """What was collected, in the same memory: nothing may be added afterwards."""
        return Strings(tensor_of(self.data, torch.uint8), tensor_of(self.ends, torch.int64))


def tensor_of(buffer: bytearray | array, dtype: torch.dtype) -> Tensor:
    """A tensor in the memory of a buffer.

    Args:
        buffer: Numbers.
        dtype: Their type.
    """
    return torch.frombuffer(buffer, dtype=dtype) if len(buffer) else torch.empty(0, dtype=dtype)
