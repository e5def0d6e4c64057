"""Rows of a data set in safetensors files: written whole or not at all, and mapped into memory to be read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmdiffusion.types import Batch

_BYTES, _ENDS = ":bytes", ":ends"
"""After the name of a column of texts: its characters in UTF-8, one text behind the other, and where each ends."""


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file that is there whole or not at all, also after a crash or a loss of power.

    Args:
        path: The file; one of this name is replaced.
        contents: Its bytes.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pack(columns: Batch) -> bytes:
    """A shard's bytes, the same for the same rows.

    Args:
        columns: Tensors and lists of texts of equal length; whole numbers take as few bytes as their range allows.
    """
    tensors: dict[str, Tensor] = {}
    for name, values in columns.items():
        if isinstance(values, Tensor):
            tensors[name] = _narrow(values.detach().cpu()).contiguous()
            continue
        texts = [text.encode() for text in values]
        tensors[name + _BYTES] = torch.frombuffer(bytearray(b"".join(texts) or b"\0"), dtype=torch.uint8)
        tensors[name + _ENDS] = torch.tensor([len(text) for text in texts]).cumsum(0)
    return save(tensors)


def _narrow(values: Tensor) -> Tensor:
    if values.dtype != torch.int64 or values.numel() == 0:
        return values
    for kind in (torch.int16, torch.int32):
        limits = torch.iinfo(kind)
        if limits.min <= int(values.min()) and int(values.max()) <= limits.max:
            return values.to(kind)
    return values


class Shard:
    """Rows of one file. Its pages are shared by all processes that read it.

    Args:
        path: The file.

    Raises:
        ValueError: if it is missing or no such file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read: {error}; expected a file of `mmdiffusion prepare`") from error

    def take(self, rows: Int[Tensor, " n"]) -> Batch:
        """Some rows, as a batch holds them: whole numbers are int64 again."""
        batch: Batch = {}
        for name, values in self.tensors.items():
            if name.endswith(_ENDS):
                column = name.removesuffix(_ENDS)
                batch[column] = self._texts(column, rows.tolist())
            elif not name.endswith(_BYTES):
                chosen = values.index_select(0, rows)  # whole rows at once: values[rows] copies number by number
                batch[name] = chosen.long() if chosen.dtype in (torch.int16, torch.int32) else chosen
        return batch

    def _texts(self, column: str, rows: Sequence[int]) -> list[str]:
        characters, ends = self.tensors[column + _BYTES].numpy(), self.tensors[column + _ENDS]
        starts = [int(ends[row - 1]) if row else 0 for row in rows]
        return [characters[start : int(ends[row])].tobytes().decode() for start, row in zip(starts, rows, strict=True)]


class Rows:
    """Rows of many shards, by one number.

    Args:
        paths: Files, in order.
        rows_per_shard: Rows of each but the last, which may have fewer.
    """

    def __init__(self, paths: Sequence[Path], rows_per_shard: int) -> None:
        self.paths, self.rows_per_shard = list(paths), rows_per_shard
        self._open: dict[int, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a process that reads: it maps the files itself."""
        return self.__dict__ | {"_open": {}}

    def take(self, rows: Int[Tensor, " n"]) -> Batch:
        """Some rows, in the order asked for."""
        shards = rows // self.rows_per_shard
        parts, places = list[Batch](), list[Tensor]()
        for number in shards.unique().tolist():
            here = (shards == number).nonzero()[:, 0]
            places.append(here)
            parts.append(self._shard(number).take(rows[here] % self.rows_per_shard))
        back = torch.cat(places).argsort()
        return {name: _joined([part[name] for part in parts], back) for name in parts[0]}

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            self._open[number] = Shard(self.paths[number])
        return self._open[number]


def _joined(parts: list[Any], back: Int[Tensor, " n"]) -> Tensor | list[str]:
    if isinstance(parts[0], Tensor):
        return parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, back)
    values = [value for part in parts for value in part]
    return [values[place] for place in back.tolist()]
