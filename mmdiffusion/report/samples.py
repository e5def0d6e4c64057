"""The pictures that a run wrote while it trained."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmdiffusion.report.uri import file_uri

NAME = re.compile(r"step-(\d+)-(.+)\.png")


@dataclass(frozen=True)
class Grid:
    """One kind of sample, at the steps of the training at which it was drawn.

    Args:
        name: The kind.
        steps: Rising.
        pictures: One for each step.
        captions: What the last was drawn for, in the order of its samples; empty where there are none.
    """

    name: str
    steps: list[int]
    pictures: list[str]
    captions: list[str]

    @property
    def frames(self) -> list[tuple[int, str]]:
        """Steps and their pictures."""
        return list(zip(self.steps, self.pictures, strict=True))


def grids(folder: Path) -> list[Grid]:
    """Pictures of a run.

    Args:
        folder: Its samples.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("step-*.png")):
        match = NAME.fullmatch(path.name)
        if match:
            found.setdefault(match[2], []).append((int(match[1]), path))
    return [grid(name, sorted(files)) for name, files in found.items()]


def grid(name: str, files: list[tuple[int, Path]]) -> Grid:
    """One kind of sample; see `Grid`."""
    text = files[-1][1].with_suffix(".txt")
    captions = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
    return Grid(name, [step for step, _ in files], [file_uri(path) for _, path in files], captions)
