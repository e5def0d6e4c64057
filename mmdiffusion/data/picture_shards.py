"""Tar files of pictures and captions, as webdataset and img2dataset write them, read at any place."""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import torch

from mmdiffusion.data.captions import as_text, lines, mend
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.folders import PICTURES
from mmdiffusion.data.image_text import PairSource
from mmdiffusion.data.layout import check_share
from mmdiffusion.data.pairs import Pairs
from mmdiffusion.data.pixels import MAX_BYTES, Pixels, decode_pixels
from mmdiffusion.data.strings import tensor_of
from mmdiffusion.data.tar_members import Member, members


class PictureShards(PairSource):
    """Tar files in which a sample is a run of files of one name with different ends: a picture and its captions.

    Headers are read once; samples are then read from where they lie, in any order. Nothing is unpacked.

    Args:
        path: A tar file, a folder of them, or a pattern such as shards/cc3m-train-*.tar.
        caption: End of the files with captions: `txt` with one a line, or `json` with `caption` or `captions`.
    """

    def __init__(self, path: str, caption: str = "txt") -> None:
        self.caption = caption.removeprefix(".").lower()
        if self.caption not in ("txt", "json"):
            raise ValueError(f"caption is {caption!r}: expected txt or json, the end of the files with captions")
        self.shards = find_shards(path)

    def index(self, max_bad_fraction: float) -> Pairs:
        """Read the headers of all shards; see `PairSource`."""
        places, problems = array("q"), list[str]()
        for number, shard in enumerate(self.shards):
            try:
                for found in samples(shard):
                    pair = self._pair(found)
                    if isinstance(pair, str):
                        problems.append(f"{shard}: {stem(found[0].name)} {pair}")
                    else:
                        picture, text = pair
                        places.extend((number, picture.offset, picture.size, text.offset, text.size))
            except (OSError, ValueError) as error:
                problems.append(f"{shard}: {error}")
        found = tensor_of(places, torch.int64).view(-1, 5)
        check_share(problems, len(found) + len(problems), max_bad_fraction, "get these shards anew")
        if not len(found):
            raise ValueError(f"{self.shards[0]} and {len(self.shards) - 1} more have no samples: expected pictures")
        return ShardPairs(self.shards, found, self.caption)

    def _pair(self, found: Sequence[Member]) -> tuple[Member, Member] | str:
        """Picture and captions among the files of a sample, or what is wrong with them."""
        ends = [os.path.splitext(member.name)[1].lower() for member in found]
        pictures = [member for member, end in zip(found, ends, strict=True) if end in PICTURES]
        texts = [member for member, end in zip(found, ends, strict=True) if end[1:] == self.caption]
        if not pictures or not texts:
            return f"has no {'picture' if not pictures else f'.{self.caption} with captions'}"
        if max(pictures[0].size, texts[0].size) > MAX_BYTES:
            return f"is beyond {MAX_BYTES} bytes"
        return pictures[0], texts[0]


def find_shards(path: str) -> list[Path]:
    """Tar files of a folder or a pattern, in the order of their names.

    Raises:
        ValueError: if there is none.
    """
    folder = Path(path).expanduser()
    found = sorted(folder.glob("*.tar")) if folder.is_dir() else sorted(map(Path, glob(str(folder))))
    if not found:
        raise ValueError(
            f"path is {path}, where no shard is: expected a .tar file, a folder of them or a pattern with *"
        )
    packed = [shard for shard in found if shard.suffix.lower() != ".tar"]
    if packed:
        raise ValueError(f"path is {path}: {packed[0].name} is no .tar file; unpack what is compressed, as with gunzip")
    return found


def samples(shard: Path) -> Iterator[list[Member]]:
    """Runs of files of a shard whose paths are alike up to the first dot of the name.

    Args:
        shard: The tar file.

    Raises:
        ValueError: where it is cut off or damaged, or a path leads out of it.
    """
    run, name, damage = list[Member](), "", None
    try:
        for member in members(shard):
            if member.name[member.name.rfind("/") + 1 :].startswith("."):
                continue  # hidden, as some systems add to every file
            if run and stem(member.name) != name:
                yield run
                run = []
            name = stem(member.name)
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{member.name} leads out of the shard: expected paths within it")
            run.append(member)
    except ValueError as error:
        damage = error  # what comes before it is given first
    if run:
        yield run
    if damage:
        raise damage


def stem(name: str) -> str:
    """A path up to the first dot of its last part."""
    dot = name.find(".", name.rfind("/") + 1)
    return name if dot < 0 else name[:dot]


class ShardPairs(Pairs):
    """Samples of shards, by where they lie.

    Args:
        shards: The tar files.
        places: Number of the shard, place and size of the picture, place and size of the captions; for each sample.
        caption: End of the files with captions.
    """

    def __init__(self, shards: list[Path], places: torch.Tensor, caption: str) -> None:
        self.shards, self.places, self.caption = shards, places, caption

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.places)

    def picture(self, row: int) -> Pixels:
        """One picture; see `Pairs`."""
        shard, start, size, _, _ = self.places[row].tolist()
        return decode_pixels(self._read(shard, start, size), self._name(shard, start))

    def captions(self, row: int) -> list[str]:
        """Its captions; see `Pairs`."""
        shard, _, _, start, size = self.places[row].tolist()
        try:
            text = as_text(self._read(shard, start, size))
            captions = list(lines(text)) if self.caption == "txt" else of_json(text)
        except ValueError as error:
            raise DamagedError(self._name(shard, start), error) from error
        if not captions:
            raise DamagedError(self._name(shard, start), "it has no caption")
        return captions

    def _read(self, shard: int, start: int, size: int) -> bytes:
        try:
            with self.shards[shard].open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise DamagedError(self.shards[shard], error.strerror) from error

    def _name(self, shard: int, start: int) -> str:
        name = self._read(shard, start - 512, 100).split(b"\0")[0].decode("utf-8", "replace")
        return f"{self.shards[shard]}: {name}"


def of_json(text: str) -> list[str]:
    """Captions of a sample's json: its `captions`, or its `caption`.

    Raises:
        ValueError: if it is damaged, or has neither.
    """
    record = json.loads(text)
    found = record.get("captions", record.get("caption")) if isinstance(record, dict) else None
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(caption, str) for caption in listed):
        raise ValueError("it has neither `caption`, a text, nor `captions`, a list of texts")
    return [words for caption in listed if (words := mend(caption))]
