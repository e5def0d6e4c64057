"""Statistics of real data that are computed once and stored with their protocol."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


@dataclass(frozen=True)
class Reference:
    """Real data whose statistics are computed once, by `mmdiffusion prepare`, and read ever after.

    Args:
        path: File of the statistics, such as `references/imagenet64.safetensors`.
        split: Split of the data that they are of.
        num_rows: Rows that they are of, in an order drawn once; more than the split has are counted on from the start
            again, so that each is taken as often as any other, give or take one. `None` takes each row once.
    """

    path: str
    split: Literal["train", "val", "test"] = "train"
    num_rows: int | None = None

    def __post_init__(self) -> None:
        """Check the number of rows.

        Raises:
            ValueError: if a covariance cannot be had from them.
        """
        if self.num_rows is not None and self.num_rows < 2:
            raise ValueError(f"reference.num_rows is {self.num_rows}: expected at least 2, or null for each row once")

    def rows(self, size: int) -> list[int]:
        """Rows of the split, some of them several times.

        Args:
            size: Rows that the split has.
        """
        if self.num_rows is None:
            return list(range(size))
        order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
        return order[torch.arange(self.num_rows) % size].tolist()

    def describe(self) -> str:
        """What is compared with, for the name of a metric: `train`, `30000 of test`."""
        return self.split if self.num_rows is None else f"{self.num_rows} of {self.split}"


def pack_statistics(tensors: dict[str, Tensor], protocol: dict[str, Any]) -> bytes:
    """Bytes of a file of statistics.

    Args:
        tensors: The statistics.
        protocol: How they were computed, in plain values.
    """
    return save(tensors, {"protocol": json.dumps(protocol)})


def read_protocol(path: str) -> dict[str, Any]:
    """Protocol of stored statistics.

    Raises:
        ValueError: if there are none at `path`.
    """
    return _open(path)[1]


def read_statistics(path: str) -> dict[str, Tensor]:
    """Stored statistics.

    Raises:
        ValueError: if there are none at `path`.
    """
    return _open(path)[0]


def _open(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise ValueError(f"reference.path is {path}: no such file; compute it with `mmdiffusion prepare -c CONFIG`")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["protocol"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"reference.path is {path}: it holds no statistics of `mmdiffusion prepare` ({error!r}); remove it and "
            "compute it anew"
        ) from error
