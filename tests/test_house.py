"""The rules of the house (CONTRIBUTING.md), read from the source with `ast`: nothing is imported or run.

A check takes a parsed file and returns its problems as `path:line: what`; the last test feeds each check a bad file.
"""

import ast
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mmdiffusion"

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_FUNCTION_LINES = 15
MAX_TRACKED_BYTES = 200_000

LEVELS = (
    {"types", "usage", "seeding", "checkpoints", "resuming", "masks", "optimizers", "sharding"},
    {"losses", "diffusion", "nn", "codecs", "data", "metrics"},
    {"methods"},
    {"runs", "callbacks", "messages"},
    {"prepare", "changes", "export", "report"},
    {"experiment"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Downwards, and forbidden all the same: a method knows neither where its batches come from nor how it is judged.
FORBIDDEN = {("methods", "data"), ("methods", "metrics")}
# On one level, and allowed all the same: a data set may hand out the tokens of a codec, made once and not every epoch;
# a codec that was learned here is a network of ours, frozen; a metric reads images by frozen towers; metrics and data
# look at images through one small classifier; a checkpoint holds descriptions of data, and only these as objects.
ALLOWED = {
    ("resuming", "checkpoints"),
    ("data", "codecs"),
    ("data", "nn"),
    ("codecs", "nn"),
    ("metrics", "codecs"),
    ("metrics", "nn"),
    ("checkpoints", "types"),
}

SOURCE = re.compile(r"\bEqs?\.|\bSecs?\.|§|\barXiv\b|\bet al\b|\bAlgorithm\b|\bTheorem\b|\bderived\b", re.IGNORECASE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """One source file of the package; `path` is relative to the repository."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def module(self) -> tuple[str, ...]:
        """Dotted name in parts, without the package: () for the package itself, ("nn", "layers")."""
        parts = Path(self.path).with_suffix("").parts[1:]
        return parts[:-1] if parts[-1:] == ("__init__",) else parts

    @property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def at(self, node: ast.stmt | ast.expr | None, problem: str) -> str:
        return f"{self.path}:{node.lineno if node else 1}: {problem}"


def package_files() -> list[File]:
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


FILES = package_files()


# Sizes -----------------------------------------------------------------------------------------------------------


def function_lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def oversized(file: File) -> list[str]:
    lines = len(file.text.splitlines())
    problems = [file.at(None, f"{lines} lines, at most {MAX_FILE_LINES}")] if lines > MAX_FILE_LINES else []
    for node in file.functions:
        if function_lines(node) > MAX_FUNCTION_LINES:
            problems.append(
                file.at(node, f"{node.name} has {function_lines(node)} lines, at most {MAX_FUNCTION_LINES}")
            )
    return problems


# Import direction ------------------------------------------------------------------------------------------------


def imported_modules(file: File) -> Iterator[tuple[ast.stmt, tuple[str, ...]]]:
    """Every import of the package, wherever it stands, as (statement, dotted name in parts without the package)."""
    here = (PACKAGE, *file.module)
    folder = here if file.path.endswith("__init__.py") else here[:-1]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from ((node, target[1:]) for target in targets if target[0] == PACKAGE)


def arrow_problem(room: str, target: str) -> str | None:
    if target in (room, "__version__") or (room, target) in ALLOWED:
        return None
    if target not in LEVEL:
        return f"imports {target or 'the package'} from {PACKAGE}: import from the room that holds it"
    if (room, target) in FORBIDDEN or LEVEL[target] >= LEVEL[room]:
        return f"{room} must not import {target}"
    return None


def late_statements(file: File) -> set[int]:
    """Ids of what does not run at import: bodies of functions and of `if TYPE_CHECKING:`."""
    conditions = [node for node in ast.walk(file.tree) if isinstance(node, ast.If)]
    typing_only = [node for node in conditions if ast.unparse(node.test).endswith("TYPE_CHECKING")]
    return {id(node) for block in [*file.functions, *typing_only] for node in ast.walk(block)}


def wrong_arrows(file: File) -> list[str]:
    if not file.module:
        return [
            file.at(node, f"import of {'.'.join(target)} outside a function: nothing heavy at import")
            for node, target in imported_modules(file)
            if id(node) not in late_statements(file)
        ]
    room = file.module[0]
    if room not in LEVEL:
        return [file.at(None, f"{room} is no room of the house: give it a level in tests/test_house.py")]
    found = ((node, arrow_problem(room, target[0] if target else "")) for node, target in imported_modules(file))
    return [file.at(node, problem) for node, problem in found if problem]


# Public names ----------------------------------------------------------------------------------------------------


def public_definitions(file: File) -> Iterator[tuple[Function | ast.ClassDef, ast.ClassDef | None]]:
    """Public functions and classes, and public and special methods of public classes; each with its class or None."""

    def walk(
        body: list[ast.stmt], owner: ast.ClassDef | None
    ) -> Iterator[tuple[Function | ast.ClassDef, ast.ClassDef | None]]:
        for node in body:
            if isinstance(node, Function | ast.ClassDef) and (not node.name.startswith("_") or is_special(node.name)):
                yield node, owner
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, node)

    return walk(file.tree.body, None)


def is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def decorators(node: Function | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}


def undocumented(file: File) -> list[str]:
    return [
        file.at(node, f"{node.name} has no docstring")
        for node, _ in public_definitions(file)
        if not is_special(node.name) and not decorators(node) & {"overload", "override", "setter"}
        if ast.get_docstring(node) is None
    ]


def unannotated(file: File) -> list[str]:
    problems = []
    for node, owner in public_definitions(file):
        if isinstance(node, ast.ClassDef):
            continue
        bound = owner is not None and "staticmethod" not in decorators(node)
        positional = [*node.args.posonlyargs, *node.args.args][bound:]
        arguments = [*positional, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        missing = [argument.arg for argument in arguments if argument and argument.annotation is None]
        missing += ["the result"] if node.returns is None else []
        if missing:
            problems.append(file.at(node, f"{node.name}: no annotation of {', '.join(missing)}"))
    return problems


def uncited(file: File) -> list[str]:
    """Public functions of diffusion/ whose docstring, and whose class's docstring, name no source."""
    if file.module[:1] != ("diffusion",):
        return []
    problems = []
    for node, owner in public_definitions(file):
        if isinstance(node, Function) and not is_special(node.name):
            texts = [ast.get_docstring(place) or "" for place in (node, owner) if place]
            if not SOURCE.search(" ".join(texts)):
                problems.append(file.at(node, f"{node.name} names no source (paper and equation, or 'derived')"))
    return problems


def printing(file: File) -> list[str]:
    calls = (node for node in ast.walk(file.tree) if isinstance(node, ast.Call))
    return [
        file.at(node, "print: use logging")
        for node in calls
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


# The tests -------------------------------------------------------------------------------------------------------

CHECKS: tuple[Callable[[File], list[str]], ...] = (
    oversized,
    wrong_arrows,
    undocumented,
    unannotated,
    uncited,
    printing,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_the_rule(check: Callable[[File], list[str]]):
    assert FILES, f"no source files under {ROOT / PACKAGE}"
    problems = [problem for file in FILES for problem in check(file)]
    assert not problems, "\n" + "\n".join(problems)


def test_median_function_is_short():
    lines = [function_lines(node) for file in FILES for node in file.functions]
    assert statistics.median(lines) <= MAX_MEDIAN_FUNCTION_LINES


def test_no_large_file_is_tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = {ROOT / name for name in names if name and not name.endswith(".lock")}
    large = sorted(path for path in paths if path.is_file() and path.stat().st_size > MAX_TRACKED_BYTES)
    listing = [f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes, at most {MAX_TRACKED_BYTES}" for path in large]
    assert not listing, "\n" + "\n".join(listing)


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


LAZY = """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmdiffusion.methods.base import Method

def _load(path):
    from mmdiffusion.methods.base import load
    return load(path)
"""


def test_data_may_import_codecs():
    assert wrong_arrows(File(f"{PACKAGE}/data/a.py", "from mmdiffusion.codecs.music import SymbolicCodec")) == []


def test_codecs_may_import_networks_and_not_the_other_way_round():
    assert wrong_arrows(File(f"{PACKAGE}/codecs/a.py", "from mmdiffusion.nn.autoencoder import A")) == []
    assert wrong_arrows(File(f"{PACKAGE}/nn/a.py", "from mmdiffusion.codecs.base import TokenCodec"))


def test_lazy_imports_are_no_arrows_of_the_package_itself():
    assert wrong_arrows(File(f"{PACKAGE}/__init__.py", LAZY)) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_passes_good_source(check: Callable[[File], list[str]]):
    assert check(File(f"{PACKAGE}/diffusion/a.py", GOOD)) == []
