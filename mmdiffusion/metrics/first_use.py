"""First use of compiled code, one process at a time.

librosa compiles parts of itself when they are first used and keeps the result beside itself. Two processes that do so
at once can leave the index of one beside the code of the other, and every process that loads this crashes (numba
0.68.1).
"""

import os
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

LOCK = Path(tempfile.gettempdir()) / f"mmdiffusion-{os.getuid() if hasattr(os, 'getuid') else 0}-first-use.lock"
"""One for each user of the machine: what is compiled is kept on the machine."""

_used: set[Hashable] = set()


@contextmanager
def one_at_a_time(name: Hashable) -> Iterator[None]:
    """Let one process in at a time while it uses something for the first time; afterwards nothing is held up.

    Args:
        name: What is used.
    """
    if name in _used:
        yield
        return
    with FileLock(LOCK):
        yield
    _used.add(name)
