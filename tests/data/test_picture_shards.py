"""Shards of pictures and captions: found in any order, damage counted, nothing unpacked and nothing run."""

import io
import json
import pickle
import tarfile

import pytest
import torch

from mmdiffusion.data import PictureShards
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.pixels import decode_pixels
from tests.data.pictures import scene, stored

JPEG, PNG = (stored(scene(width, 30), kind) for width, kind in ((40, "JPEG"), (50, "PNG")))


def write(path, *files):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pair(name, caption="a bird", picture=JPEG, end="jpg"):
    return (f"{name}.{end}", picture), (f"{name}.txt", caption.encode())


@pytest.fixture
def folder(tmp_path):
    second = [("0002.txt", b"two birds\nand more"), ("0002.cls", b"3"), ("0002.png", PNG)]
    write(tmp_path / "s" / "b-1.tar", *second, *pair("in.side/0003.x", "three", end="JPEG"))
    write(tmp_path / "s" / "a-0.tar", *pair("0000", "none"), *pair("0001", "one"))
    return tmp_path / "s"


def test_samples_are_read_in_the_order_of_the_shards(folder):
    pairs = PictureShards(str(folder)).index(0.0)
    assert [pairs.captions(row) for row in range(len(pairs))] == [
        ["none"],
        ["one"],
        ["two birds", "and more"],
        ["three"],
    ]
    assert torch.equal(pairs.picture(2), decode_pixels(PNG, ""))
    assert torch.equal(pairs.picture(3), decode_pixels(JPEG, ""))
    assert pairs.num_captions().tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize(("pattern", "size"), [("a-*.tar", 2), ("b-1.tar", 2), ("*.tar", 4)])
def test_a_pattern_names_some(folder, pattern, size):
    assert len(PictureShards(str(folder / pattern)).index(0.0)) == size


def test_captions_of_json(tmp_path):
    records = [{"caption": " one ", "url": "x"}, {"captions": ["two", "", "three"]}]
    files = [file for row, record in enumerate(records) for file in with_json(row, record)]
    write(tmp_path / "a.tar", *files)
    pairs = PictureShards(str(tmp_path / "a.tar"), caption="json").index(0.0)
    assert [pairs.captions(row) for row in range(2)] == [["one"], ["two", "three"]]


def with_json(row, record):
    return (f"{row}.jpg", JPEG), (f"{row}.json", json.dumps(record).encode())


@pytest.mark.parametrize("record", [{"text": "one"}, ["one"], {"caption": 3}, {"captions": ["one", None]}])
def test_json_without_captions_is_damaged(tmp_path, record):
    pairs = PictureShards(str(write(tmp_path / "a.tar", *with_json(0, record))), caption="json").index(0.0)
    with pytest.raises(DamagedError, match=r"a\.tar: 0\.json: it has neither `caption`"):
        pairs.captions(0)


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n", "has no caption"), (b"caf\xe9", r"not UTF-8 \(byte 0xe9 at 3\)")]
)
def test_damaged_captions_are_named(tmp_path, content, message):
    pairs = PictureShards(str(write(tmp_path / "a.tar", ("7.jpg", JPEG), ("7.txt", content)))).index(0.0)
    with pytest.raises(DamagedError, match=r"a\.tar: 7\.txt: .*" + message):
        pairs.captions(0)


def test_a_damaged_picture_is_named(tmp_path):
    pairs = PictureShards(str(write(tmp_path / "a.tar", *pair("7", picture=JPEG[:300])))).index(0.0)
    with pytest.raises(DamagedError, match=r"a\.tar: 7\.jpg"):
        pairs.picture(0)


def test_a_sample_that_lacks_something_is_counted(tmp_path):
    path = write(tmp_path / "a.tar", *pair("0"), ("1.jpg", JPEG), ("2.txt", b"two"), *pair("3"))
    with pytest.raises(ValueError, match=r"2 of 4 .*a\.tar: 1 has no \.txt with captions; .*a\.tar: 2 has no picture"):
        PictureShards(str(path)).index(0.49)
    with pytest.warns(UserWarning, match="2 of 4"):
        assert len(PictureShards(str(path)).index(0.5)) == 2


def test_a_shard_that_is_cut_off_gives_what_comes_before(tmp_path):
    path = write(tmp_path / "a.tar", *(file for row in range(9) for file in pair(row)))
    path.write_bytes(path.read_bytes()[: 8 * (1024 + 512 + -(-len(JPEG) // 512) * 512) + 700])
    with pytest.raises(ValueError, match=r"1 of 9 .*a\.tar: it is cut off: 8\.jpg .*get these shards anew"):
        PictureShards(str(path)).index(0.0)
    with pytest.warns(UserWarning, match="cut off"):
        assert len(PictureShards(str(path)).index(0.2)) == 8


@pytest.mark.parametrize("name", ["../0", "/etc/0", "a/../../0"])
def test_paths_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}\.jpg leads out of the shard"):
        PictureShards(str(write(tmp_path / "a.tar", *pair(name)))).index(0.0)
    assert not (tmp_path.parent / "0.jpg").exists()


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this ran')",))


def test_what_could_run_code_is_not_looked_into(tmp_path):
    path = write(
        tmp_path / "a.tar", *pair("0"), ("0.pyd", pickle.dumps(Payload())), ("0.pickle", pickle.dumps(Payload()))
    )
    pairs = PictureShards(str(path)).index(0.0)
    assert pairs.captions(0) == ["a bird"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "where no shard is: expected a .tar file, a folder of them or a pattern"),
        ("b.tar.gz", r"b\.tar\.gz is no \.tar file; unpack what is compressed, as with gunzip"),
    ],
)
def test_a_path_without_shards_is_named(tmp_path, name, message):
    write(tmp_path / "b.tar.gz", *pair("0"))
    with pytest.raises(ValueError, match=message):
        PictureShards(str(tmp_path / name))


def test_shards_without_samples_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar and 0 more have no samples"):
        PictureShards(str(write(tmp_path / "a.tar"))).index(0.0)


def test_another_end_of_captions_is_named():
    with pytest.raises(ValueError, match="caption is 'npy': expected txt or json"):
        PictureShards("absent", caption="npy")


def test_a_shard_that_is_gone_later_is_named(tmp_path):
    path = write(tmp_path / "a.tar", *pair("0"))
    pairs = PictureShards(str(path)).index(0.0)
    path.unlink()
    with pytest.raises(DamagedError, match=r"a\.tar: No such file"):
        pairs.picture(0)


def test_hidden_files_are_left_out(tmp_path):
    path = write(tmp_path / "a.tar", ("./._0.jpg", b"x"), *pair("./0"), ("./._0.txt", b"x"), *pair("./1"))
    assert len(PictureShards(str(path)).index(0.0)) == 2
