"""A folder of shards under one manifest: filled in any order by any number of processes, resumed, and checked."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmdiffusion.data.shards import pack, write_whole
from mmdiffusion.types import Batch

MANIFEST = "manifest.json"
_NUM_THREADS = 4
"""Files that are read at a time to be checked; hashing leaves the interpreter to other threads."""
_log = logging.getLogger(__name__)


class ShardFolder:
    """Shards that are written under a plan. What is written does not depend on who writes it, or when.

    While shards are missing, each that is there has its size and SHA-256 beside it; in the end the manifest has them.

    Args:
        path: The folder.
        plan: What the shards hold and how it is made, in plain values; a folder has one plan.
        num_shards: Number of shards.
    """

    def __init__(self, path: Path, plan: dict[str, Any], num_shards: int) -> None:
        self.path, self.num_shards = path, num_shards
        self.plan: dict[str, Any] = json.loads(json.dumps(plan))

    def file(self, number: int) -> Path:
        """File of a shard."""
        return self.path / f"shard-{number:05d}.safetensors"

    def begin(self) -> None:
        """Make the folder, or go on with one that has the same plan.

        Raises:
            ValueError: if it was begun with another plan, naming what differs.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / MANIFEST).exists():
            check_plan(self.path, self.plan, read_manifest(self.path)["plan"])
        else:
            self._write_manifest(None)

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Shards that are still to be written; one that is damaged is named, and is among them."""
        entries = self._entries(numbers)
        problems = dict(damaged(self.path, [entry for entry in entries.values() if entry is not None]))
        for problem in problems.values():
            _log.warning("%s; it is written anew", problem)
        return [number for number, entry in entries.items() if entry is None or entry["file"] in problems]

    def write(self, number: int, columns: Batch) -> None:
        """Write one shard.

        Args:
            number: Its number.
            columns: Its rows.
        """
        contents, file = pack(columns), self.file(number)
        entry = {"file": file.name, "bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
        write_whole(file, contents)
        write_whole(self._note(number), json.dumps(entry).encode())

    def finish(self) -> bool:
        """Complete the manifest if all shards are there, and say whether they are; any process may be the one."""
        entries = list(self._entries(range(self.num_shards)).values())
        if None in entries:
            return False
        self._write_manifest(entries)
        for number in range(self.num_shards):
            self._note(number).unlink(missing_ok=True)
        return True

    def _note(self, number: int) -> Path:
        return self.file(number).with_suffix(".json")

    def _entries(self, numbers: Iterable[int]) -> dict[int, dict[str, Any] | None]:
        """Sizes and hashes of shards that are there, None of those that are not."""
        notes = {number: self._read_note(number) for number in numbers}
        # after the notes, which another process removes once the manifest is complete
        stored = read_manifest(self.path)["shards"] or [None] * self.num_shards
        return {number: note or stored[number] for number, note in notes.items()}

    def _read_note(self, number: int) -> dict[str, Any] | None:
        try:
            return json.loads(self._note(number).read_bytes())
        except FileNotFoundError:
            return None

    def _write_manifest(self, entries: list[Any] | None) -> None:
        manifest = {"plan": self.plan, "num_shards": self.num_shards, "shards": entries}
        write_whole(self.path / MANIFEST, json.dumps(manifest, indent=1).encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a folder of shards; its `shards` is None while some are missing.

    Raises:
        ValueError: if there is none.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        assert {"plan", "num_shards", "shards"} <= set(manifest)
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} holds no cache: {MANIFEST} is missing; make one with `mmdiffusion prepare`"
        ) from error
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{path / MANIFEST} is no manifest of `mmdiffusion prepare`: remove {path}, make it anew"
        ) from error
    return manifest


def check_plan(path: Path, expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Check that a folder is what is expected.

    Args:
        path: The folder or file.
        expected: Plan of the configuration at hand.
        found: Plan that it was made by.

    Raises:
        ValueError: naming the first entry that differs, and both values.
    """
    for name, ours, theirs in _differences("", json.loads(json.dumps(expected)), found):
        raise ValueError(
            f"{path} was prepared with {name.lstrip('.')} {_shown(theirs)}: this configuration has {_shown(ours)}; "
            "prepare another with `mmdiffusion prepare`, or take the configuration that this one was made with"
        )


def _shown(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)


def _differences(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**theirs, **ours}:
            yield from _differences(f"{name}.{key}", ours.get(key), theirs.get(key))
    elif ours != theirs:
        yield name, ours, theirs


def damaged(path: Path, entries: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Files whose size or SHA-256 is not that of their entry: name, and what is wrong.

    Args:
        path: Their folder.
        entries: As in a manifest.
    """

    def problem(entry: dict[str, Any]) -> str | None:
        file = path / entry["file"]
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{file} is damaged: it has {size} bytes, expected {entry['bytes']}"
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found == entry["sha256"]:
            return None
        return f"{file} is damaged: its SHA-256 begins with {found[:12]}, expected {entry['sha256'][:12]}"

    entries = list(entries)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for entry, found in zip(entries, threads.map(problem, entries), strict=True):
            if found is not None:
                yield entry["file"], found
