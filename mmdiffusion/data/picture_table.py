"""A table with a picture and a caption in each row."""

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.data.captions import Captions, mend
from mmdiffusion.data.image_text import PairSource
from mmdiffusion.data.layout import check_share
from mmdiffusion.data.pairs import Pairs
from mmdiffusion.data.pixels import Pixels, read_pixels
from mmdiffusion.data.strings import Collector, Strings, tensor_of

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NUM_LOOKED_AT = 100
"""Pictures that are looked for before training; looking for a million of them takes minutes on some disks."""


class PictureTable(PairSource):
    """A table of text, a picture and a caption in each row, with names of columns in the first.

    Rows with the same picture are captions of one picture.

    Args:
        path: The file: UTF-8, with fields in double quotes where needed.
        picture: Column with the files of pictures.
        caption: Column with captions.
        folder: Where the files are, when their paths do not begin at the root; `None` for the table's folder.
        delimiter: What separates columns; `None` for a comma in .csv and a tabulator in .tsv files.
    """

    def __init__(
        self,
        path: str,
        picture: str = "image",
        caption: str = "caption",
        folder: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise ValueError(f"path is {path}, which is missing: expected a table with columns {picture} and {caption}")
        end = self.path.suffix.lower()
        if delimiter is None and end not in _DELIMITERS:
            raise ValueError(f"delimiter is None and path ends in {end!r}: expected .csv or .tsv, or a delimiter")
        self.delimiter = _DELIMITERS[end] if delimiter is None else delimiter
        self.folder = self.path.parent if folder is None else Path(folder).expanduser()
        self.columns = (picture, caption)
        next(self.rows(), None)  # the first line, so that a wrong name is said at once

    def index(self, max_bad_fraction: float) -> Pairs:
        """Read the table once, row by row; see `PairSource`."""
        names, texts, owners, problems = Collector(), Collector(), array("q"), list[str]()
        known: dict[str, int] = {}
        for number, name, caption in self.rows():
            words = mend(caption)
            if not name or not words:
                missing = self.columns[0] if not name else self.columns[1]
                problems.append(f"{missing} is empty in line {number}")
                continue
            if name not in known:
                known[name] = len(known)
                names.append(name)
            owners.append(known[name])
            texts.append(words)
        check_share(problems, len(texts) + len(problems), max_bad_fraction, f"mend {self.path}")
        if not len(texts):
            raise ValueError(f"{self.path} has no rows: expected a picture and a caption in each")
        pairs = TablePairs(self.folder, names.strings(), texts.strings(), tensor_of(owners, torch.int64))
        pairs.look_for_some(self.path)
        return pairs

    def rows(self) -> Iterator[tuple[int, str, str]]:
        """Line, picture and caption of each row; begins with the names of the columns, which are not given.

        Raises:
            ValueError: naming the line that cannot be read, or the column that is not there.
        """
        number = 0
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self.delimiter, strict=True)
                picture, caption = self._places(next(reader, []))
                for row in reader:
                    number = reader.line_num
                    if row:
                        full = row + [""] * (max(picture, caption) + 1 - len(row))
                        yield number, full[picture], full[caption]
        except UnicodeDecodeError as error:
            found = f"not UTF-8 after line {number} (byte 0x{error.object[error.start]:02x})"
            raise ValueError(f"{self.path} is {found}; convert it, such as with iconv -f latin1 -t utf-8") from error
        except csv.Error as error:
            raise ValueError(f"{self.path} cannot be read after line {number}: {error}; close its quotes") from error

    def _places(self, header: list[str]) -> tuple[int, int]:
        for name in self.columns:
            if name not in header:
                raise ValueError(
                    f"{self.path} has no column {name!r}: found {', '.join(map(repr, header)) or 'nothing'}, separated "
                    f"by {self.delimiter!r}; name the columns with `picture` and `caption`"
                )
        picture, caption = (header.index(name) for name in self.columns)
        return picture, caption


class TablePairs(Pairs):
    """Pictures and captions of a table.

    Args:
        folder: Where relative paths begin.
        names: Paths of pictures.
        texts: Captions.
        owners: Number of the picture of each caption.
    """

    def __init__(self, folder: Path, names: Strings, texts: Strings, owners: Int[Tensor, " n"]) -> None:
        self.folder, self.names = folder, names
        self.texts = Captions(texts, owners, len(names))

    def look_for_some(self, table: Path) -> None:
        """Look for some pictures, evenly spread.

        Args:
            table: What names them.

        Raises:
            ValueError: if none of them is there.
        """
        step = max(1, len(self) // _NUM_LOOKED_AT)
        paths = [self.folder / self.names[row] for row in range(0, len(self), step)]
        if not any(path.is_file() for path in paths):
            raise ValueError(
                f"{table}: none of {len(paths)} pictures that were looked for is there, such as {paths[0]}; expected "
                "paths that begin in `folder`"
            )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def picture(self, row: int) -> Pixels:
        """One picture; see `Pairs`."""
        return read_pixels(self.folder / self.names[row])

    def captions(self, row: int) -> list[str]:
        """Its captions in the order of the table; see `Pairs`."""
        return self.texts.of(row)

    def num_captions(self) -> Int[Tensor, " n"]:
        """How many captions each picture has."""
        return self.texts.counts
