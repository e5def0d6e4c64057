"""Members of a tar file by one look at each header: where they are, so that any of them can be read later.

`tarfile` takes 23 microseconds a member and keeps an object for each; common headers are read here in 4. What is not
common (long names, extended headers, old formats) is left to `tarfile`. Nothing is unpacked: names are only compared.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_FILES = (b"0", b"\0")
_EXTENDED = (b"L", b"K", b"x", b"X", b"g", b"S")
_FOLDER, _LINKS = b"5", (b"1", b"2")


class Member(NamedTuple):
    """A file in a tar file.

    Attributes:
        name: Its path there.
        offset: Where its first byte is.
        size: Its length in bytes.
    """

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """Files of a tar file, in order.

    Args:
        path: The tar file, not compressed.

    Raises:
        ValueError: where it is cut off or damaged; what comes before was yielded.
    """
    length = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        offset, block = 0, os.pread(file.fileno(), _BLOCK, 0)
        while len(block) == _BLOCK and block[0]:
            member, following = _regular(block, offset) or _any(file, offset)
            if following - _BLOCK > length or (member and member.offset + member.size > length):
                name = member.name if member else "a member"
                raise ValueError(f"it is cut off: {name} at byte {offset} goes beyond its {length} bytes")
            if member is not None:
                yield member
            offset, block = following, os.pread(file.fileno(), _BLOCK, following)
    if len(block) < _BLOCK or any(block):
        raise ValueError(f"it is cut off or no tar file: expected a header or the end's mark at byte {offset}")


def _regular(block: bytes, offset: int) -> tuple[Member, int] | None:
    """Member and place of the next one, from a header as nearly all are."""
    kind, prefix, size = block[156:157], block[345], block[124:135]
    if kind not in _FILES or prefix or not size.isdigit() or not block[:100].isascii():
        return None
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _octal(block[148:156]):
        raise ValueError(f"it is damaged: the header at byte {offset} has a wrong checksum")
    name, number = block[: block.index(0) if 0 in block[:100] else 100].decode("ascii"), int(size, 8)
    start = offset + _BLOCK
    return Member(name, start, number), start + -(-number // _BLOCK) * _BLOCK


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits.isdigit() else -1


def _any(file: BinaryIO, offset: int) -> tuple[Member | None, int]:
    """Member and place of the next one, by `tarfile`; no member for a folder."""
    file.seek(offset)
    try:
        with tarfile.TarFile(fileobj=file) as archive:
            info = archive.next()
            following = archive.offset
    except tarfile.TarError as error:
        raise ValueError(f"it is damaged at byte {offset}: {error}") from error
    if info is None:
        raise ValueError(f"it is damaged: expected a header at byte {offset}")
    if info.isdir():
        return None, following
    if not info.isreg() or info.issparse():
        raise ValueError(f"{info.name} at byte {offset} is a link or a special file: expected files only")
    return Member(info.name, info.offset_data, info.size), following
