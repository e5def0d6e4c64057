"""mmdiffusion: multi-modal diffusion models on one denoiser, trained and tested with Lightning."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mmdiffusion.methods.base import Method

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: "str | Path") -> "Method":
    """Rebuild a trained method from a run, one of its checkpoints or an export, with its averaged weights.

    Nothing that is read can run code: a pickle is refused.

    Args:
        path: Folder of a run, a `.ckpt` file of one, or a folder that `mmdiffusion export` wrote.

    Raises:
        ValueError: if there is nothing of ours at `path`, naming the file that is missing or cannot be read.
    """
    from mmdiffusion.runs import load_method

    return load_method(path)
