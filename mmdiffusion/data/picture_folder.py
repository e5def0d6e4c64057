"""A folder of pictures, each with a text file of the same name."""

import os
from collections.abc import Iterator
from pathlib import Path

from mmdiffusion.data.captions import as_text, lines
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.folders import PICTURES
from mmdiffusion.data.image_text import PairSource
from mmdiffusion.data.layout import check_share, existing_folder
from mmdiffusion.data.pairs import Pairs
from mmdiffusion.data.pixels import Pixels, read_bytes, read_pixels
from mmdiffusion.data.strings import Collector


class PictureFolder(PairSource):
    """Pictures in a folder and its subfolders, each with its captions in a .txt file of the same name, one a line.

    Args:
        root: The folder.
    """

    def __init__(self, root: str) -> None:
        self.root = existing_folder(root, "pictures, and a .txt file of the same name for each")

    def index(self, max_bad_fraction: float) -> Pairs:
        """List names; texts are read with their pictures; see `PairSource`."""
        names, problems = Collector(), list[str]()
        for name, has_text in listing(self.root):
            if has_text:
                names.append(name)
            else:
                problems.append(f"{name} has no {Path(name).with_suffix('.txt').name} beside it")
        if not len(names) and not problems:
            raise ValueError(
                f"root is {self.root}, which has no pictures: expected {', '.join(sorted(PICTURES))} files"
            )
        remedy = "write a caption for each, or take pictures without one away"
        check_share(problems, len(names) + len(problems), max_bad_fraction, remedy)
        return FolderPairs(self.root, names)


def listing(root: Path) -> Iterator[tuple[str, bool]]:
    """Pictures below a folder in the order of their names, without hidden ones, and whether a text is beside each.

    Args:
        root: The folder.

    Yields:
        Path from the folder on, and whether it has a text.
    """
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if name[0] != ".")
        here = os.path.relpath(folder, root)
        stems = {stem for stem, end in map(os.path.splitext, files) if end == ".txt"}
        for file in sorted(files):
            stem, end = os.path.splitext(file)
            if end.lower() in PICTURES and file[0] != ".":
                yield file if here == "." else os.path.join(here, file), stem in stems


class FolderPairs(Pairs):
    """Pictures below a folder.

    Args:
        root: The folder.
        names: Pictures, from there on.
    """

    def __init__(self, root: Path, names: Collector) -> None:
        self.root, self.names = root, names.strings()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def picture(self, row: int) -> Pixels:
        """One picture; see `Pairs`."""
        return read_pixels(self.root / self.names[row])

    def captions(self, row: int) -> list[str]:
        """Lines of the text beside it; see `Pairs`."""
        path = (self.root / self.names[row]).with_suffix(".txt")
        try:
            captions = list(lines(as_text(read_bytes(path))))
        except ValueError as error:
            raise DamagedError(path, error) from error
        if not captions:
            raise DamagedError(path, "it has no caption, expected one a line")
        return captions
