"""Motion of AIST++ from its pickles: 219 numbers of the SMPL body, or 17 joints in metres."""

from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.unpickle import load_pickle

NUM_SMPL_FEATURES = 3 + 24 * 9
NUM_KEYPOINTS = 17
LARGEST_PICKLE = 64 * 2**20
"""Bytes; the longest dance takes less than a sixteenth of it."""
_NUM_KEPT = 8
"""Sequences that stay in memory."""


class Dance(ABC):
    """A sequence in memory as its file has it; windows of it become tensors.

    Args:
        num_frames: Its length.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    @abstractmethod
    def window(self, start: int, length: int) -> Float[Tensor, "length d"]:
        """Part of the dance, with memory of its own.

        Args:
            start: First frame.
            length: Number of frames.
        """


class SMPLDance(Dance):
    """The body in 219 numbers a frame: where its root is, in metres, then 24 joints' rotation matrices, row by row.

    Metres are `smpl_trans / smpl_scaling`. The layout is that of FACT (Li et al. 2021, arXiv 2101.08779;
    google-research/mint), whose width the authors of D2M-GAN name for their own files.

    Args:
        path: A pickle of `motions/`.

    Raises:
        DamagedError: if it cannot be read, or is none.
    """

    def __init__(self, path: Path) -> None:
        stored = _arrays(path, ("smpl_poses", "smpl_trans", "smpl_scaling"))
        poses, root, scale = (stored[name] for name in ("smpl_poses", "smpl_trans", "smpl_scaling"))
        if poses.size != 72 * len(root) or root.shape[1:] != (3,) or scale.size != 1 or not scale.item() > 0:
            shapes = f"smpl_poses {poses.shape}, smpl_trans {root.shape}, smpl_scaling {scale.shape}"
            raise DamagedError(path, f"it has {shapes}: expected (f, 72), (f, 3) and a number above 0")
        super().__init__(len(root))
        self.poses, self.root = poses.reshape(len(root), 24, 3), root / scale.item()

    def window(self, start: int, length: int) -> Float[Tensor, "length 219"]:
        """See `Dance`."""
        from scipy.spatial.transform import Rotation

        part = slice(start, start + length)
        rotations = Rotation.from_rotvec(self.poses[part].reshape(-1, 3)).as_matrix().reshape(length, -1)
        return torch.from_numpy(np.concatenate([self.root[part], rotations], axis=1)).float()


class KeypointDance(Dance):
    """Positions of COCO's 17 joints in metres, joint by joint: x, y up, z towards the first camera.

    They are the smoothed `keypoints3d_optim`, for `keypoints3d` lacks joints. The floor is not at height 0.

    Args:
        path: A pickle of `keypoints3d/`.

    Raises:
        DamagedError: if it cannot be read, or is none.
    """

    def __init__(self, path: Path) -> None:
        self.joints = _arrays(path, ("keypoints3d_optim",))["keypoints3d_optim"]
        super().__init__(len(self.joints))
        if self.joints.shape[1:] != (NUM_KEYPOINTS, 3):
            found = self.joints.shape
            raise DamagedError(path, f"keypoints3d_optim has shape {found}: expected (f, {NUM_KEYPOINTS}, 3)")

    def window(self, start: int, length: int) -> Float[Tensor, "length 51"]:
        """See `Dance`."""
        return torch.from_numpy(self.joints[start : start + length].reshape(length, -1) / 100).float()


@lru_cache(maxsize=_NUM_KEPT)
def open_dance(kind: type[Dance], path: Path) -> Dance:
    """A sequence; those opened last stay in memory, for windows that are read in order.

    Args:
        kind: What its file holds.
        path: The file.

    Raises:
        DamagedError: if it cannot be read, or is none.
    """
    return kind(path)  # pyright: ignore[reportArgumentType] - the kinds take a path


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Finite numbers of a pickle."""
    try:
        if path.stat().st_size > LARGEST_PICKLE:
            raise DamagedError(path, f"it has {path.stat().st_size} bytes: expected at most {LARGEST_PICKLE}")
        stored: Any = load_pickle(path)
    except (OSError, ValueError) as error:
        raise DamagedError(path, error) from error
    missing = [name for name in names if name not in stored] if isinstance(stored, dict) else list(names)
    if missing:
        raise DamagedError(path, f"it has no {missing[0]}: expected a pickle of AIST++ with {', '.join(names)}")
    try:
        arrays = {name: np.asarray(stored[name], dtype=np.float32) for name in names}
    except (TypeError, ValueError) as error:
        raise DamagedError(path, error) from error
    for name, values in arrays.items():
        if values.size == 0:
            raise DamagedError(path, f"{name} has shape {values.shape}: expected at least one frame")
        if not np.isfinite(values).all():
            raise DamagedError(path, f"{name} has {np.count_nonzero(~np.isfinite(values))} numbers that are not finite")
    return arrays
