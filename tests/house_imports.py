"""Which room of the house may import which (CONTRIBUTING.md), read from the source with `ast`."""

import ast
from collections.abc import Iterator

from tests.house import PACKAGE, File

LEVELS = (
    {"types", "usage", "seeding", "signals", "allocation", "checkpoints", "resuming", "masks", "numbers", "optimizers"}
    | {"sharding"},
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
        return [file.at(None, f"{room} is no room of the house: give it a level in tests/house_imports.py")]
    found = ((node, arrow_problem(room, target[0] if target else "")) for node, target in imported_modules(file))
    return [file.at(node, problem) for node, problem in found if problem]
