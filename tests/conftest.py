"""Shape annotations are checked at run time: the hook has to stand before the first import of the package."""

import os
from pathlib import Path

import jaxtyping
import torch

jaxtyping.install_import_hook("mmdiffusion", "beartype.beartype")
torch.set_num_threads(1)

# Tests that call librosa themselves may be the first to compile it, in two workers at once: see metrics/first_use.py.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "numba" / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["NUMBA_CACHE_DIR"] = str(CACHE)
