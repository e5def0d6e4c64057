"""Pickles from outside: NumPy arrays and plain Python values are read, anything that would run code is refused."""

import io
import pickle
from pathlib import Path
from typing import Any

_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""What arrays, their scalars and the byte strings of Python 2 are rebuilt from; none of it runs code of the file."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A class or function that the pickle names.

        Raises:
            UnpicklingError: if it is not one of the few that rebuild arrays.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, expected NumPy arrays and plain values only")
        # renamed in NumPy 2: the old name warns there, the new one is not known before
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def load_pickle(path: Path) -> Any:
    """Read a pickle that holds lists, dictionaries, numbers, strings and NumPy arrays of numbers.

    Args:
        path: The file; of Python 2 or 3.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or names anything else: loading it could run code.
    """
    stored = path.read_bytes()
    try:
        return _Plain(io.BytesIO(stored), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path} is no pickle of arrays and plain values: {error}") from error
