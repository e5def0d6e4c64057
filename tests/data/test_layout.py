"""Folders as users unpack them, and what is said of what is in them."""

import logging

import pytest

from mmdiffusion.data.layout import check_share, existing_folder, first_folder, say_counts, unfold


def test_folders_that_hold_themselves_are_looked_through(tmp_path):
    (tmp_path / "text" / "text" / "text").mkdir(parents=True)
    (tmp_path / "images" / "other").mkdir(parents=True)
    assert unfold(tmp_path, "text") == tmp_path / "text" / "text" / "text"
    assert unfold(tmp_path, "images") == tmp_path / "images"
    assert unfold(tmp_path, "absent") is None


def test_places_and_names_are_tried_in_turn(tmp_path):
    (tmp_path / "b" / "text").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    folders = (tmp_path / "a", tmp_path / "b")
    assert first_folder(folders, ("texts", "text")) == tmp_path / "b" / "text"
    assert first_folder(folders, ("texts",)) is None


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="which is missing: expected a folder with birds"):
        existing_folder(tmp_path / "absent", "birds")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which is a file: expected a folder with birds"):
        existing_folder(tmp_path / "file", "birds")


def test_problems_within_the_limit_are_said_and_beyond_it_stop():
    problems = [f"{row}.jpg is gone" for row in range(12)]
    with pytest.warns(
        UserWarning, match=r"12 of 100 samples cannot be used: 0\.jpg is gone; .*\(and 2 more\)\. They are"
    ):
        check_share(problems, 100, 0.12, "find them")
    with pytest.raises(
        ValueError, match=r"max_bad_fraction is 0\.11: expected fewer; find them, or raise it"
    ) as caught:
        check_share(problems, 100, 0.11, "find them")
    assert "10.jpg" not in str(caught.value)
    check_share([], 0, 0.0, "nothing")


def test_counts_stand_beside_the_published_ones(caplog):
    with caplog.at_level(logging.INFO):
        say_counts("Zoo", {"birds": 1000}, {"birds": 1000})
    assert "Zoo: 1,000 birds, as published" in caplog.text
    with pytest.warns(UserWarning, match="Zoo: 5 birds; published are 1,000 birds"):
        say_counts("Zoo", {"birds": 5}, {"birds": 1000})
