"""Pictures and captions of any files: the module around folders, tables and shards."""

import logging

import pytest

from mmdiffusion.data import ImageText, PictureFolder, PictureTable
from tests.data.pictures import scene


def write(folder, size):
    folder.mkdir()
    for row in range(size):
        scene(20 + row, 24).save(folder / f"{row}.png")
        (folder / f"{row}.txt").write_text(f"picture {row}\nin other words {row}")
    return PictureFolder(str(folder))


def build(train, test=None, **settings):
    return ImageText(train, test, **{"size": 8, "num_workers": 0, "batch_size": 2} | settings)


def test_splits_come_from_their_sources(tmp_path, caplog):
    data = build(write(tmp_path / "a", 7), write(tmp_path / "b", 3), num_val=2, eval_captions="all")
    with caplog.at_level(logging.INFO):
        data.prepare_data()
    assert [data.num_rows(name) for name in ("train", "val", "test")] == [5, 4, 6]
    assert data.rows("test", [2, 3])["caption"] == ["picture 1", "in other words 1"]
    assert "ImageText: 7 train pictures" in caplog.text
    assert "ImageText: 3 test pictures" in caplog.text


def test_one_source_is_enough(tmp_path):
    data = build(write(tmp_path / "a", 7), num_val=2)
    data.prepare_data()
    assert data.rows("val", [0, 1])["caption"] == data.rows("test", [0, 1])["caption"] == ["picture 0", "picture 3"]


def test_without_any_for_validation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="test is None and num_val is 0: expected one of them, to validate on"):
        build(write(tmp_path / "a", 2))


def test_the_limit_of_damage_holds_for_the_index(tmp_path):
    source = write(tmp_path / "a", 4)
    (tmp_path / "a" / "2.txt").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 samples cannot be used: 2\.png has no 2\.txt"):
        build(source, num_val=1).prepare_data()
    with pytest.warns(UserWarning, match=r"2\.png has no"):
        build(source, num_val=1, max_bad_fraction=0.25).prepare_data()


def test_a_picture_that_a_table_names_and_is_not_there_is_counted_when_it_is_read(tmp_path):
    write(tmp_path / "a", 2)
    path = tmp_path / "a" / "t.csv"
    path.write_text("image,caption\n0.png,one\ngone.png,two\n1.png,three\n")
    data = build(PictureTable(str(path)), num_val=1)
    with pytest.raises(ValueError, match=r"1 of 2 samples are damaged.*gone\.png: No such file"):
        data.rows("train", [0])
    data = build(PictureTable(str(path)), num_val=1, max_bad_fraction=0.5)
    assert data.rows("train", [0, 1])["caption"] == ["three", "three"]
