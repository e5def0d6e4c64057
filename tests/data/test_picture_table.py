"""Tables of pictures and captions."""

import csv

import pytest
import torch

from mmdiffusion.data import PictureTable
from mmdiffusion.data.pixels import decode_pixels
from tests.data.pictures import scene, stored

JPEG = stored(scene(), "JPEG")


@pytest.fixture
def pictures(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    return tmp_path


def write(path, *rows, header=("image", "caption"), delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return str(path)


def captions(pairs):
    return [pairs.captions(row) for row in range(len(pairs))]


def test_rows_of_one_picture_are_its_captions(pictures):
    rows = ("b.jpg", 'a "red", bird'), ("a.jpg", "two\nlines"), ("b.jpg", "again")
    pairs = PictureTable(write(pictures / "t.csv", *rows)).index(0.0)
    assert captions(pairs) == [['a "red", bird', "again"], ["two lines"]]
    assert pairs.num_captions().tolist() == [2, 1]
    assert torch.equal(pairs.picture(0), decode_pixels(JPEG, ""))


def test_names_of_columns_tabulators_and_another_folder(pictures):
    (pictures / "lists").mkdir()
    path = write(
        pictures / "lists" / "t.tsv", ("7", "one, two", "a.jpg"), header=("id", "title", "filepath"), delimiter="\t"
    )
    pairs = PictureTable(path, picture="filepath", caption="title", folder=str(pictures)).index(0.0)
    assert captions(pairs) == [["one, two"]]
    assert pairs.picture(0).shape == (3, 40, 60)


def test_paths_from_the_root_and_a_mark_of_the_byte_order(pictures):
    rows = [(str(pictures / "a.jpg"), "one")]
    path = write(pictures / "captions.txt", *rows, delimiter="|", encoding="utf-8-sig")
    assert PictureTable(path, folder="elsewhere", delimiter="|").index(0.0).picture(0).shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a.jpg", " \ufffd"), r"1 of 2 .*caption is empty in line 3.*mend .*t\.csv"),
        (("", "two"), "image is empty in line 3"),
        (("a.jpg",), "caption is empty in line 3"),
    ],
)
def test_a_row_that_lacks_something_is_named(pictures, row, message):
    table = PictureTable(write(pictures / "t.csv", ("b.jpg", "one"), row))
    with pytest.raises(ValueError, match=message):
        table.index(0.0)
    with pytest.warns(UserWarning, match="empty in line 3"):
        assert captions(table.index(0.5)) == [["one"]]


def test_a_column_that_is_not_there_is_named_at_once(pictures):
    path = write(pictures / "t.csv", ("a.jpg", "one"), header=("filepath", "title"))
    with pytest.raises(
        ValueError, match=r"has no column 'image': found 'filepath', 'title', separated by ','; name the"
    ):
        PictureTable(path)
    (pictures / "e.csv").touch()
    with pytest.raises(ValueError, match="has no column 'image': found nothing"):
        PictureTable(str(pictures / "e.csv"))


def test_what_is_not_utf_8_is_named_with_its_line(pictures):
    path = pictures / "t.csv"
    path.write_bytes(b"image,caption\na.jpg,one\nb.jpg,caf\xe9\n")
    with pytest.raises(ValueError, match=r"t\.csv is not UTF-8 after line \d \(byte 0xe9\); convert it"):
        PictureTable(str(path)).index(0.0)


def test_quotes_that_are_not_closed_are_named_with_their_line(pictures):
    path = pictures / "t.csv"
    path.write_text('image,caption\na.jpg,one\nb.jpg,"two\na.jpg,three\n')
    with pytest.raises(ValueError, match=r"t\.csv cannot be read after line 2: .*close its quotes"):
        PictureTable(str(path)).index(0.0)


def test_pictures_that_are_all_elsewhere_are_named(pictures):
    path = write(pictures / "t.csv", ("x/a.jpg", "one"), ("x/b.jpg", "two"))
    with pytest.raises(ValueError, match=r"none of 2 pictures .*x/a\.jpg; expected paths that begin in `folder`"):
        PictureTable(path).index(0.0)


def test_a_table_without_rows_or_without_a_file_is_named(pictures):
    with pytest.raises(ValueError, match="has no rows: expected a picture and a caption"):
        PictureTable(write(pictures / "t.csv")).index(0.0)
    with pytest.raises(ValueError, match="which is missing: expected a table with columns image and caption"):
        PictureTable(str(pictures / "absent.csv"))
    with pytest.raises(ValueError, match=r"delimiter is None and path ends in '\.txt': expected \.csv or \.tsv"):
        PictureTable(write(pictures / "t.txt", ("a.jpg", "one")))
