"""The rules of the house (CONTRIBUTING.md) for one file, read from the source with `ast`: nothing is imported or run.

A check takes a parsed file and returns its problems as `path:line: what`.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mmdiffusion"

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

SOURCE = re.compile(r"\bEqs?\.|\bSecs?\.|§|\barXiv\b|\bet al\b|\bAlgorithm\b|\bTheorem\b|\bderived\b", re.IGNORECASE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """One Python file; `path` is relative to the repository, and names a room where the file is of the package."""

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


# Sizes ---------------------------------------------------------------------------------------------------------


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


# Public names --------------------------------------------------------------------------------------------------


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
