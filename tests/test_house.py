"""The rules of the house (CONTRIBUTING.md): every file keeps them, and each check finds a bad file."""

import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.house import (
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    PACKAGE,
    ROOT,
    File,
    function_lines,
    oversized,
    printing,
    unannotated,
    uncited,
    undocumented,
)
from tests.house_imports import wrong_arrows

MAX_MEDIAN_FUNCTION_LINES = 15
MAX_TRACKED_BYTES = 200_000

CHECKS: tuple[Callable[[File], list[str]], ...] = (
    oversized,
    wrong_arrows,
    undocumented,
    unannotated,
    uncited,
    printing,
)


def parsed(paths: Iterable[Path]) -> list[File]:
    return [File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in sorted(paths)]


def repository_files() -> list[Path]:
    """What git tracks, and what it would if asked; without git the test is skipped."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(path for path in {ROOT / name for name in names if name} if path.is_file())


FILES = parsed((ROOT / PACKAGE).rglob("*.py"))


# What is there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_the_rule(check: Callable[[File], list[str]]):
    assert FILES, f"no source files under {ROOT / PACKAGE}"
    problems = [problem for file in FILES for problem in check(file)]
    assert not problems, "\n" + "\n".join(problems)


def test_python_outside_the_package_is_short_too():
    files = parsed(path for path in repository_files() if path.suffix == ".py" and ROOT / PACKAGE not in path.parents)
    assert any(file.path == "tests/test_house.py" for file in files), f"no test files under {ROOT}"
    problems = [problem for file in files for problem in oversized(file)]
    assert not problems, "\n" + "\n".join(problems)


def test_median_function_is_short():
    lines = [function_lines(node) for file in FILES for node in file.functions]
    assert statistics.median(lines) <= MAX_MEDIAN_FUNCTION_LINES


def test_no_large_file_is_tracked():
    paths = [path for path in repository_files() if not path.name.endswith(".lock")]
    large = [path for path in paths if path.stat().st_size > MAX_TRACKED_BYTES]
    listing = [f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes, at most {MAX_TRACKED_BYTES}" for path in large]
    assert not listing, "\n" + "\n".join(listing)


# The checks ----------------------------------------------------------------------------------------------------

LONG_FUNCTION = "def f() -> None:\n" + "    pass\n" * MAX_FUNCTION_LINES
BAD = [
    (oversized, "nn/a.py", "x = 1\n" * (MAX_FILE_LINES + 1), ":1: 351 lines"),
    (oversized, "nn/a.py", LONG_FUNCTION, ":1: f has 61 lines"),
    (wrong_arrows, "nn/a.py", "import mmdiffusion.diffusion.gaussian", ":1: nn must not import diffusion"),
    (wrong_arrows, "diffusion/a.py", "from ..nn import layers", ":1: diffusion must not import nn"),
    (wrong_arrows, "nn/__init__.py", "from .. import data", ":1: nn must not import data"),
    (wrong_arrows, "types.py", "from mmdiffusion import seeding", ":1: types must not import seeding"),
    (
        wrong_arrows,
        "methods/a.py",
        "\ndef f():\n    from mmdiffusion.data.base import B",
        ":3: methods must not import data",
    ),
    (wrong_arrows, "methods/a.py", "from mmdiffusion.metrics import judge", ":1: methods must not import metrics"),
    (wrong_arrows, "metrics/a.py", "from mmdiffusion.methods.base import M", ":1: metrics must not import methods"),
    (wrong_arrows, "codecs/a.py", "from mmdiffusion.data.base import B", ":1: codecs must not import data"),
    (wrong_arrows, "data/a.py", "from mmdiffusion.methods.base import M", ":1: data must not import methods"),
    (wrong_arrows, "callbacks/a.py", "import mmdiffusion", "import from the room"),
    (wrong_arrows, "utils/a.py", "", "utils is no room"),
    (wrong_arrows, "__init__.py", "from mmdiffusion.cli import main", "outside a function"),
    (undocumented, "nn/a.py", "class A:\n    '''A.'''\n    def f(self) -> None: ...", ":3: f has no docstring"),
    (undocumented, "nn/a.py", "class A: ...", ":1: A has no docstring"),
    (unannotated, "nn/a.py", "class A:\n    def __init__(self, x, *, y: int): ...", "no annotation of x, the result"),
    (unannotated, "nn/a.py", "def f(x: int, *rest) -> None: ...", "no annotation of rest"),
    (uncited, "diffusion/a.py", "def f():\n    '''Mean.'''", ":1: f names no source"),
    (printing, "nn/a.py", "print('x')", ":1: print"),
]


@pytest.mark.parametrize(("check", "name", "text", "expected"), BAD)
def test_check_finds_the_bad_line(check: Callable[[File], list[str]], name: str, text: str, expected: str):
    problems = check(File(f"{PACKAGE}/{name}", text))
    assert len(problems) == 1
    assert problems[0].startswith(f"{PACKAGE}/{name}:")
    assert expected in problems[0]


GOOD = '''"""Fine."""
from mmdiffusion import __version__, seeding
from mmdiffusion.diffusion.schedules import Table
from ..types import Batch
from . import layers

class A:
    """Posterior (Ho et al. 2020, Eq. 6)."""

    def __init__(self, x: int) -> None:
        self._x = x

    def mean(self, t: int, *rest: int) -> int:
        """Mean."""
        def inner(y):
            return y
        return inner(t)

def _private(x):
    return x
'''


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_passes_good_source(check: Callable[[File], list[str]]):
    assert check(File(f"{PACKAGE}/diffusion/a.py", GOOD)) == []


def test_data_may_import_codecs():
    assert wrong_arrows(File(f"{PACKAGE}/data/a.py", "from mmdiffusion.codecs.music import SymbolicCodec")) == []


def test_codecs_may_import_networks_and_not_the_other_way_round():
    assert wrong_arrows(File(f"{PACKAGE}/codecs/a.py", "from mmdiffusion.nn.autoencoder import A")) == []
    assert wrong_arrows(File(f"{PACKAGE}/nn/a.py", "from mmdiffusion.codecs.base import TokenCodec"))


LAZY = """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmdiffusion.methods.base import Method

def _load(path):
    from mmdiffusion.methods.base import load
    return load(path)
"""


def test_lazy_imports_are_no_arrows_of_the_package_itself():
    assert wrong_arrows(File(f"{PACKAGE}/__init__.py", LAZY)) == []
