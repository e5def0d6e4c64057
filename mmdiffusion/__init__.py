"""mmdiffusion: multi-modal diffusion models on one denoiser, trained and tested with Lightning."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mmdiffusion.methods.base import Method

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: "str | Path") -> "Method":
    """Rebuild a trained method from a run folder or one of its checkpoints, with its averaged weights.

    Args:
        path: A run folder, or a `.ckpt` file of one.

    Raises:
        ValueError: if there is no run or checkpoint of ours at `path`.
    """
    from mmdiffusion.runs import load_method

    return load_method(path)
