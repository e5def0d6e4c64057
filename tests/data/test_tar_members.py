"""Members of tar files: where tarfile finds them, too."""

import io
import re
import tarfile

import pytest

from mmdiffusion.data.tar_members import Member, members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "d/" + "x" * 60 + "/" + "y" * 80 + ".jpg"
"""Beyond the 100 bytes of a common header."""


def write(path, names, kind="ustar", extra=()):
    with tarfile.open(path, "w", format=FORMATS[kind]) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            archive.addfile(info, io.BytesIO(bytes([65 + number]) * info.size))
        for info in extra:
            archive.addfile(info)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", FORMATS)
def test_files_are_found_where_tarfile_finds_them(tmp_path, kind):
    names = ["a.jpg", "d/b.txt", LONG, "caf\u00e9.jpg", *([] if kind == "ustar" else ["z" * 300 + ".txt"])]
    path = write(tmp_path / "a.tar", names, kind, [special("folder", tarfile.DIRTYPE)])
    with tarfile.open(path) as archive:
        theirs = [Member(info.name, info.offset_data, info.size) for info in archive if info.isreg()]
    assert list(members(path)) == theirs
    assert [member.name for member in theirs] == names


def test_the_first_byte_is_where_it_says(tmp_path):
    path = write(tmp_path / "a.tar", ["a", "b", "c"])
    stored = path.read_bytes()
    assert [stored[start : start + size] for _, start, size in members(path)] == [b"", b"B" * 700, b"C" * 1400]


def test_an_empty_one_has_none(tmp_path):
    assert list(members(write(tmp_path / "a.tar", []))) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_special_files_are_refused(tmp_path, kind):
    path = write(tmp_path / "a.tar", ["a.jpg"], extra=[special("passwd.jpg", kind, "/etc/passwd")])
    with pytest.raises(ValueError, match=r"passwd\.jpg at byte 512 is a link or a special file"):
        list(members(path))


@pytest.mark.parametrize(
    ("length", "num_whole", "message"),
    [
        (512 + 512 + 600, 1, "it is cut off: b at byte 512 goes beyond its 1624 bytes"),
        (512 + 300, 1, "expected a header or the end's mark at byte 512"),
        (512 + 512 + 1024, 2, "expected a header or the end's mark at byte 2048"),
    ],
)
def test_a_file_that_is_cut_off_gives_what_comes_before(tmp_path, length, num_whole, message):
    path = write(tmp_path / "a.tar", ["a", "b", "c"])
    path.write_bytes(path.read_bytes()[:length])
    found = members(path)
    assert [next(found).name for _ in range(num_whole)] == ["a", "b", "c"][:num_whole]
    with pytest.raises(ValueError, match=re.escape(message)):
        next(found)


@pytest.mark.parametrize("name", ["a", "caf\u00e9"])
def test_a_damaged_header_is_named(tmp_path, name):
    path = write(tmp_path / "a.tar", [name, "b"])
    stored = bytearray(path.read_bytes())
    stored[110] ^= 1
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=r"it is damaged.* byte 0"):
        list(members(path))


def test_what_is_no_tar_file_is_named(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"\x1f\x8b" + bytes(range(256)) * 4)
    with pytest.raises(ValueError, match="damaged at byte 0"):
        list(members(path))
