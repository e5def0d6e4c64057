"""Pairs whose two pictures differ in size are named before work starts, from the headers of their files alone."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from mmdiffusion.data.class_maps import ClassMaps
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.image_pairs import ImagePairs
from mmdiffusion.data.pair_layouts import Sheets, TwoFolders
from mmdiffusion.data.pixels import picture_size, read_pixels
from tests.data.pictures import save, scene, stored
from tests.helpers import CONFIG, command, write_config


def build(root, layout, **settings):
    return ImagePairs(str(root), layout=layout, **{"size": 20, "batch_size": 1, "num_workers": 0} | settings)


def write_pairs(root, count=4, splits=("train", "val", "test")):
    """Pairs in two folders that fit; the largest is 63 x 40."""
    for split in splits:
        for i in range(count):
            for side in "AB":
                save(root / f"{split}{side}" / f"{i}.png", 60 + i, 40, file_format="PNG")


# Headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_header_says_what_is_read(tmp_path, file_format, orientation):
    exif, path = Image.Exif(), tmp_path / "1"
    exif[0x0112] = orientation
    path.write_bytes(stored(scene(50, 30), file_format, exif=exif))
    width, height = picture_size(path)
    assert read_pixels(path).shape == (3, height, width)
    assert {width, height} == {50, 30}


def test_no_pixel_is_read(tmp_path):
    write_pairs(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedError):
        read_pixels(tmp_path / "trainA" / "0.png")
    build(tmp_path, TwoFolders()).prepare_data()


@pytest.mark.parametrize(("content", "message"), [(b"x" * 40, r"no picture \(40 bytes\)"), (None, "No such file")])
def test_a_file_without_a_header_is_named(tmp_path, content, message):
    path = tmp_path / "1.png"
    if content:
        path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"1\.png: {message}"):
        picture_size(path)


# Pairs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_two_pictures_of_different_sizes_are_named(tmp_path, split):
    write_pairs(tmp_path)
    build(tmp_path, TwoFolders()).prepare_data()
    save(tmp_path / f"{split}A" / "2.png", 40, 62, file_format="PNG")
    message = rf"1 of 4 samples .*{split}B/2\.png: 62 x 40 pixels, but .*{split}A/2\.png has 40 x 62: expected one size"
    with pytest.raises(ValueError, match=rf"{message}.*; resize one of them.*resize or remove them, or raise it"):
        build(tmp_path, TwoFolders()).prepare_data()


def test_a_map_of_another_size_is_named(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"{split}_img" / "1.jpg")
        (tmp_path / f"{split}_label").mkdir()
        Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / f"{split}_label" / "1.png")
    build(tmp_path, ClassMaps(3)).prepare_data()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "train_label" / "1.png")
    with pytest.raises(ValueError, match=r"1\.jpg: 60 x 40 pixels, but .*1\.png has 30 x 20.*by the nearest pixel"):
        build(tmp_path, ClassMaps(3)).prepare_data()


def test_a_sheet_of_odd_width_is_named(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / split / "1.jpg", 60, 30)
    build(tmp_path, Sheets()).prepare_data()
    save(tmp_path / "val" / "1.jpg", 61, 30)
    with pytest.raises(ValueError, match=r"val/1\.jpg: 61 pixels wide, expected two halves.*; make the sheet again"):
        build(tmp_path, Sheets()).prepare_data()


def test_few_are_left_out_where_that_is_allowed(tmp_path):
    write_pairs(tmp_path)
    save(tmp_path / "trainA" / "2.png", 40, 62, file_format="PNG")
    data = build(tmp_path, TwoFolders(), max_bad_fraction=0.25)
    with pytest.warns(UserWarning, match="1 of 4 samples cannot be used: .*They are left out"):
        data.prepare_data()
    assert data.rows("train", range(4))["index"].tolist() == [0, 1, 3, 3]


@pytest.mark.parametrize(
    ("function", "split"),
    [(TrainerFn.VALIDATING, "val"), (TrainerFn.TESTING, "test"), (TrainerFn.PREDICTING, "test")],
)
def test_a_command_is_refused_for_the_split_that_it_reads(tmp_path, function, split):
    write_pairs(tmp_path)
    for name in {"train", "val", "test"} - {split}:
        save(tmp_path / f"{name}A" / "2.png", 40, 62, file_format="PNG")
    data = build(tmp_path, TwoFolders())
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn=function), world_size=1)
    data.prepare_data()
    save(tmp_path / f"{split}A" / "2.png", 40, 62, file_format="PNG")
    with pytest.raises(ValueError, match=rf"{split}B/2\.png"):
        data.prepare_data()


def test_a_refused_training_leaves_no_folder(tmp_path):
    write_pairs(tmp_path / "data")
    save(tmp_path / "data" / "testA" / "2.png", 40, 62, file_format="PNG")
    config = copy.deepcopy(CONFIG)
    config["trainer"]["callbacks"] = []
    config["model"]["init_args"]["extras"] = {}
    settings = {"root": str(tmp_path / "data"), "size": 8, "batch_size": 1, "layout": {"class_path": "TwoFolders"}}
    config["data"] = {"class_path": "ImagePairs", "init_args": settings | {"num_workers": 0}}
    words = ["fit", "-c", write_config(tmp_path / "tiny.yaml", config), "--run", tmp_path / "run"]
    status, _, error = command(*words)
    assert status == 2
    assert "testB/2.png: 62 x 40 pixels" in error
    assert not (tmp_path / "run").exists()
    save(tmp_path / "data" / "testA" / "2.png", 62, 40, file_format="PNG")
    status, _, error = command(*words)
    assert status == 0, error
