"""Pairs of pictures from self-made files in the public layouts."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiffusion.data.class_maps import CITYSCAPES, Cityscapes, ClassMaps
from mmdiffusion.data.image_pairs import ImagePairs
from mmdiffusion.data.pair_layouts import Sheets, TwoFolders
from mmdiffusion.types import ImageSpec, SegmentationSpec
from tests.data.pictures import save

pytestmark = pytest.mark.filterwarnings("ignore:.*; published are")

VALUES = np.repeat(np.array([0, 7, 26, 33, 255], np.uint8), 12)[None].repeat(40, 0)
"""A map of 60 x 40 pixels: five bands of numbers."""


def build(root, layout, **settings):
    return ImagePairs(str(root), layout=layout, **{"size": 20, "batch_size": 1, "num_workers": 0} | settings)


def save_map(path, values=VALUES, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    (picture if mode is None else picture.convert(mode)).save(path)


def save_sheet(path, width=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.new("RGB", (width, 30), (255, 0, 0))
    sheet.paste((0, 0, 255), (width // 2, 0, width, 30))
    sheet.save(path)


def test_sheets_are_cut_in_two(tmp_path):
    for split in ("train", "val", "test"):
        save_sheet(tmp_path / split / "1.PNG")
    right = build(tmp_path, Sheets()).rows("train", [0])
    assert right["image"][0, :, 0, 0].tolist() == [-1, -1, 1]
    assert right["paired"][0, :, 0, 0].tolist() == [1, -1, -1]
    left = build(tmp_path, Sheets(image="left")).rows("test", [0])
    assert torch.equal(left["image"], right["paired"])
    assert build(tmp_path, Sheets()).spec == {"image": ImageSpec(3, 20), "paired": ImageSpec(3, 20)}


def test_sheet_of_odd_width_is_damaged(tmp_path):
    save_sheet(tmp_path / "train" / "1.png", 61)
    save_sheet(tmp_path / "val" / "1.png")
    with pytest.raises(ValueError, match="61 pixels wide, expected two halves"):
        build(tmp_path, Sheets()).rows("train", [0])


@pytest.mark.parametrize(("image", "paired"), [("{split}B", "{split}A"), ("B/{split}", "A/{split}")])
def test_two_folders_by_name(tmp_path, image, paired):
    for split in ("train", "test"):
        for name, mode in (("2", "L"), ("1", "RGB")):
            save(tmp_path / image.format(split=split) / f"{name}.jpg", mode=mode)
            save(tmp_path / paired.format(split=split) / f"{name}.png", mode=mode, file_format="PNG")
    data = build(tmp_path, TwoFolders(image, paired))
    batch = data.rows("train", [0, 1])
    assert data.num_rows("val") == data.num_rows("test") == 2
    image, other = batch["image"], batch["paired"]
    assert isinstance(image, torch.Tensor)
    assert isinstance(other, torch.Tensor)
    assert (image - other).abs().mean() < 0.1  # one is a JPEG
    is_grey = [torch.equal(one[0], one[2]) for one in batch["image"]]
    assert is_grey == [False, True]


@pytest.mark.parametrize("settings", [{"random_crop": True, "flip": True}, {"random_crop": True, "squash": True}])
def test_both_are_cut_alike(tmp_path, settings):
    for i in range(8):
        save(tmp_path / "trainA" / f"{i}.png", file_format="PNG")
        save(tmp_path / "trainB" / f"{i}.png", file_format="PNG")
    data = build(tmp_path, TwoFolders(), held_out=1, **settings)
    batch = data.rows("train", range(7))
    assert torch.equal(batch["image"], batch["paired"])
    assert any(not torch.equal(one, batch["image"][0]) for one in batch["image"])


def test_held_out_pairs_are_the_last_and_stand_in_for_test(tmp_path):
    for i in range(5):
        save_sheet(tmp_path / "train" / f"{i}.png")
    data = build(tmp_path, Sheets(), held_out=2)
    names = {name: [path[-5:] for path in data.files(name).pairs.images] for name in ("train", "val", "test")}
    assert names == {"train": ["0.png", "1.png", "2.png"], "val": ["3.png", "4.png"], "test": ["3.png", "4.png"]}


def write_cityscapes(root, split, city, name):
    save(root / "leftImg8bit" / split / city / f"{city}_{name}_leftImg8bit.png", file_format="PNG")
    for kind in ("color", "instanceIds", "labelIds"):
        path = root / "gtFine" / split / city / f"{city}_{name}_gtFine_{kind}.png"
        save_map(path, VALUES if kind == "labelIds" else VALUES.astype(np.uint16) * 1000)
    (root / "gtFine" / split / city / f"{city}_{name}_gtFine_polygons.json").write_text("{}")


@pytest.mark.parametrize("is_nested", [False, True])
def test_cityscapes_as_unpacked(tmp_path, is_nested):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster"), ("test", "berlin")):
        write_cityscapes(tmp_path, split, city, "000000_000019")
    if is_nested:
        for name in ("leftImg8bit", "gtFine"):
            (tmp_path / f"{name}_trainvaltest").mkdir()
            (tmp_path / name).rename(tmp_path / f"{name}_trainvaltest" / name)
    data = build(tmp_path, Cityscapes(), squash=True)
    batch = data.rows("train", [0, 1])
    assert data.num_rows("train") == 2
    assert "munster" in data.files("test").pairs.images[0], "published test maps are empty"
    assert batch["segmentation"].dtype == torch.int64
    assert batch["segmentation"][0, 0, ::4].tolist() == [0, 7, 26, 33, 0]
    assert data.spec["segmentation"] == SegmentationSpec(CITYSCAPES, 20)
    assert (CITYSCAPES[7], CITYSCAPES[26], CITYSCAPES[33], len(CITYSCAPES)) == ("road", "car", "bicycle", 34)


def test_a_part_is_told(tmp_path):
    write_cityscapes(tmp_path, "train", "aachen", "000000_000019")
    with pytest.warns(UserWarning, match="1 train pairs; published are 2,975 train pairs"):
        build(tmp_path, Cityscapes()).num_rows("train")


def test_cityscapes_as_pix2pixhd_sorts_it(tmp_path):
    save(tmp_path / "train_img" / "aachen_1_leftImg8bit.png", file_format="PNG")
    save_map(tmp_path / "train_label" / "aachen_1_gtFine_labelIds.png")
    save_map(tmp_path / "train_inst" / "aachen_1_gtFine_instanceIds.png", VALUES.astype(np.uint16) * 1000)
    batch = build(tmp_path, Cityscapes(), squash=True).rows("train", [0])
    assert batch["segmentation"].unique().tolist() == [0, 7, 26, 33]


@pytest.mark.parametrize("mode", [None, "P"])
def test_classes_of_other_data_are_counted_from_one(tmp_path, mode):
    values = np.minimum(VALUES, 3) if mode else VALUES
    save(tmp_path / "train_img" / "1.jpg")
    path = tmp_path / "train_label" / "1.png"
    save_map(path, values)
    if mode:
        picture = Image.fromarray(values)
        picture.putpalette([9, 9, 9, 200, 0, 0, 0, 50, 0, 7, 7, 7])
        picture.save(path)
    data = build(tmp_path, ClassMaps(182), squash=True)
    expected = [1, 4] if mode else [0, 1, 8, 27, 34]
    assert data.rows("train", [0])["segmentation"].unique().tolist() == expected
    assert len(data.spec["segmentation"].names) == 183


def test_loader_hands_over_two_bytes_and_the_hook_makes_classes(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"{split}_img" / "1.jpg")
        save_map(tmp_path / f"{split}_label" / "1.png")
    data = build(tmp_path, ClassMaps(34))
    batch = next(iter(data.val_dataloader()))
    assert batch["segmentation"].dtype == torch.int16
    made = data.on_after_batch_transfer(batch, 0)
    assert made["segmentation"].dtype == torch.int64
    assert made["image"].dtype == torch.float32


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: save_map(path, VALUES[:20]),
            r"1\.jpg: 60 x 40 pixels, but .*1\.png has 60 x 20: expected one size",
        ),
        (lambda path: save_map(path, VALUES.astype(np.uint16) * 1000), "mode I;16, expected numbers of classes in 8"),
        (lambda path: save_map(path, mode="RGB"), r"mode RGB, .*take the one of labels"),
        (lambda path: save_map(path, np.full_like(VALUES, 40)), "it has 40, which is the number of no class"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), r"1\.png: "),
    ],
)
def test_map_that_does_not_fit_is_damaged(tmp_path, write, message):
    save(tmp_path / "train_img" / "1.jpg")
    save_map(tmp_path / "train_label" / "1.png")
    write(tmp_path / "train_label" / "1.png")
    with pytest.raises(ValueError, match=message):
        build(tmp_path, ClassMaps(34)).rows("train", [0])


def test_pictures_of_two_sizes_are_damaged(tmp_path):
    save(tmp_path / "trainA" / "1.jpg", 60, 40)
    save(tmp_path / "trainB" / "1.jpg", 30, 20)
    with pytest.raises(ValueError, match=r"1\.jpg: 30 x 20 pixels, but .*trainA/1\.jpg has 60 x 40"):
        build(tmp_path, TwoFolders()).rows("train", [0])


def test_picture_without_partner(tmp_path):
    for name in ("trainA/1.jpg", "trainB/1.jpg", "trainB/2.jpg"):
        save(tmp_path / name)
    with pytest.raises(ValueError, match="1 files have no partner, such as 2 of trainB, which trainA has not"):
        build(tmp_path, TwoFolders()).num_rows("train")


def test_two_files_of_one_name(tmp_path):
    for name in ("trainA/1.jpg", "trainB/1.jpg", "trainB/1.JPEG"):
        save(tmp_path / name)
    with pytest.raises(ValueError, match="expected names that differ without extension"):
        build(tmp_path, TwoFolders()).num_rows("train")


def test_another_layout(tmp_path):
    save(tmp_path / "train_img" / "1.jpg")
    with pytest.raises(ValueError, match="it has train_img: expected sheets of two pictures"):
        build(tmp_path, Sheets()).num_rows("train")


def test_training_folder_alone(tmp_path):
    save_sheet(tmp_path / "train" / "1.png")
    with pytest.raises(ValueError, match=r"it has neither val nor test: expected .* or take held_out above 0"):
        build(tmp_path, Sheets()).num_rows("val")
    with pytest.raises(ValueError, match="has 1 training pairs: expected more than held_out, 1"):
        build(tmp_path, Sheets(), held_out=1).num_rows("train")


def test_missing_root(tmp_path):
    with pytest.raises(
        ValueError, match=r"which is missing: expected a folder with Cityscapes: .*cityscapes-dataset\.com"
    ):
        build(tmp_path / "none", Cityscapes())


@pytest.mark.parametrize("make", [lambda: TwoFolders("B", "{split}A"), lambda: ClassMaps(3, classes="maps")])
def test_folder_without_split_is_refused(make):
    with pytest.raises(ValueError, match=r"is '\w+': expected a folder with {split} in its name"):
        make()


@pytest.mark.parametrize("number", [0, 255])
def test_number_of_classes_out_of_range(number):
    with pytest.raises(ValueError, match=f"num_classes is {number}: expected 1 to 254"):
        ClassMaps(number)


def test_negative_held_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="held_out is -1"):
        build(tmp_path, Sheets(), held_out=-1)
