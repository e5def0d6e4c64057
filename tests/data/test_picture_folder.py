"""A folder of pictures and texts."""

import pytest
import torch

from mmdiffusion.data import PictureFolder
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.pixels import decode_pixels
from tests.data.pictures import scene, stored

JPEG = stored(scene(), "JPEG")


def write(folder, texts, end=".jpg"):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}{end}").write_bytes(JPEG)
        if text is not None:
            (folder / f"{name}.txt").write_bytes(text.encode())


def test_each_picture_has_the_text_of_its_name(tmp_path):
    write(tmp_path, {"b": "a bird\n\na red bird\n", "a.x": "one"})
    write(tmp_path / "inner", {"c": "two"}, end=".JPEG")
    (tmp_path / "notes.txt").write_text("belongs to none")
    write(tmp_path / ".hidden", {"d": "three"})
    write(tmp_path, {"._b": None})
    pairs = PictureFolder(str(tmp_path)).index(0.0)
    assert [pairs.captions(row) for row in range(len(pairs))] == [["one"], ["a bird", "a red bird"], ["two"]]
    assert pairs.num_captions().tolist() == [1, 2, 1]
    assert torch.equal(pairs.picture(2), decode_pixels(JPEG, ""))


def test_a_picture_without_a_text_is_named(tmp_path):
    write(tmp_path, {"a": "one", "b": None})
    with pytest.raises(
        ValueError, match=r"1 of 2 samples cannot be used: b\.jpg has no b\.txt beside it.*write a caption"
    ):
        PictureFolder(str(tmp_path)).index(0.0)
    with pytest.warns(UserWarning, match=r"b\.jpg has no b\.txt"):
        assert len(PictureFolder(str(tmp_path)).index(0.5)) == 1


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "it has no caption"), (b"caf\xe9 bird", "not UTF-8"), (None, "No such file")]
)
def test_a_text_that_cannot_be_read_is_damaged(tmp_path, content, message):
    write(tmp_path, {"a": "one"})
    pairs = PictureFolder(str(tmp_path)).index(0.0)
    (tmp_path / "a.txt").unlink()
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DamagedError, match=rf"a\.txt: .*{message}"):
        pairs.captions(0)
    assert pairs.num_captions().tolist() == [1]


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"which has no pictures: expected \.bmp, .*\.jpg"):
        PictureFolder(str(tmp_path)).index(0.0)
    with pytest.raises(ValueError, match=r"which is missing: expected a folder with pictures, and a \.txt file"):
        PictureFolder(str(tmp_path / "absent"))
