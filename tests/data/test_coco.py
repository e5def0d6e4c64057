"""COCO: captions by the number of their picture, both years, and what is missing."""

import json
import logging

import pytest
import torch

from mmdiffusion.data import COCO
from tests.data.pictures import scene

pytestmark = pytest.mark.filterwarnings("ignore:.*; published are")
SIZES = {"train": 6, "val": 3}
GREY = 2


def name_of(part, year, image):
    return f"COCO_{part}2014_{image:012d}.jpg" if year == 2014 else f"{image:012d}.jpg"


def image_of(part, row):
    """Numbers of images: not in order, as in the public file."""
    return (1000 if part == "train" else 9000) + (37 * row) % 101


def captions(part, row):
    return [f"{part} {row} caption {which}" for which in range(5 + row % 3)]


def records(part, year):
    images, annotations = [], []
    for row in range(SIZES[part]):
        image = image_of(part, row)
        images.append({"license": 4, "file_name": name_of(part, year, image), "height": 40, "width": 60, "id": image})
        annotations += [
            (which, row, {"image_id": image, "id": 7, "caption": f" {text}\n"})
            for which, text in enumerate(captions(part, row))
        ]
    scattered = [record for _, _, record in sorted(annotations, key=lambda found: found[:2])]
    licenses = [{"url": "https://example.org", "id": 4, "name": "By"}]
    return {"info": {"year": year}, "licenses": licenses, "images": images, "annotations": scattered}


def write(root, year=2017, pictures="{name}", annotations="annotations"):
    for part in SIZES:
        found = records(part, year)
        folder = root / pictures.format(name=f"{part}{year}")
        folder.mkdir(parents=True)
        for row, image in enumerate(found["images"]):
            scene(60, 40 + row, mode="L" if row == GREY else "RGB").save(folder / image["file_name"])
        (root / annotations).mkdir(parents=True, exist_ok=True)
        file_of(root, part, year, annotations).write_text(json.dumps(found))
    return root


def file_of(root, part="train", year=2017, annotations="annotations"):
    return root / annotations / f"captions_{part}{year}.json"


def build(root, **settings):
    return COCO(str(root), **{"size": 16, "num_workers": 0, "batch_size": 2} | settings)


def change(root, edit, part="train"):
    found = json.loads(file_of(root, part).read_text())
    edit(found)
    file_of(root, part).write_text(json.dumps(found))


def test_captions_belong_to_their_picture(tmp_path):
    data = build(write(tmp_path), eval_captions="all")
    batch = data.rows("test", range(data.num_rows("test")))
    assert batch["caption"] == [caption for row in range(3) for caption in captions("val", row)]
    assert batch["picture"].tolist() == [0] * 5 + [1] * 6 + [2] * 7
    assert batch["image"].shape == (18, 3, 16, 16)


def test_pictures_are_those_of_their_names(tmp_path):
    pairs = build(write(tmp_path)).part("train")
    assert [pairs.picture(row).shape[1] for row in range(6)] == list(range(40, 46))
    grey = pairs.picture(GREY)
    assert torch.equal(grey[0], grey[2])


def test_training_draws_from_the_captions_of_the_picture(tmp_path):
    files = build(write(tmp_path)).split("train")
    assert {files[1 + epoch * 6]["caption"] for epoch in range(80)} == set(captions("train", 1))


@pytest.mark.parametrize(
    ("year", "pictures", "annotations"),
    [
        (2017, "images/{name}", "annotations"),
        (2014, "{name}/{name}", "annotations"),
        (2014, "{name}", "annotations/annotations"),
        (2017, "{name}", "annotations_trainval2017/annotations"),
    ],
)
def test_both_years_in_any_folders(tmp_path, year, pictures, annotations):
    data = build(write(tmp_path, year, pictures, annotations), year=year, num_val=2)
    assert [data.num_rows(name) for name in ("train", "val", "test")] == [4, 2, 3]
    assert data.rows("val", [1])["caption"] == [captions("train", 3)[0]]


def test_a_part_of_the_pictures_is_said_to_be_one(tmp_path):
    data = build(write(tmp_path))
    with pytest.warns(UserWarning, match="6 training pictures; published are 118,287 training pictures"):
        data.split("train")
    with pytest.warns(UserWarning, match="3 validation pictures; published are 5,000 validation pictures"):
        data.split("test")


def test_a_picture_that_is_not_there_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "train2017" / name_of("train", 2017, image_of("train", 1))).unlink()
    with pytest.raises(
        ValueError, match=r"1 of 6 samples cannot be used: no .*train2017/000000001037\.jpg.*get what is"
    ):
        build(tmp_path).prepare_data()
    with pytest.warns(UserWarning, match="1 of 6"):
        pairs = build(tmp_path, max_bad_fraction=0.2).part("train")
    assert [pairs.captions(row) for row in range(5)] == [captions("train", row) for row in (0, 2, 3, 4, 5)]


def test_a_picture_without_a_caption_is_named(tmp_path, caplog):
    image = image_of("train", 3)

    def empty(found):
        for record in found["annotations"]:
            record["caption"] = " \n" if record["image_id"] == image else record["caption"]

    change(write(tmp_path), empty)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ValueError, match=r"1 of 6 .*10\.jpg has no caption in captions_tr"),
    ):
        build(tmp_path).prepare_data()
    assert "5 captions are empty and left out" in caplog.text


def test_a_caption_of_no_picture_is_named(tmp_path):
    change(write(tmp_path), lambda found: found["images"].pop(2))
    with pytest.raises(ValueError, match=r"captions_train2017\.json has 7 captions of images .*, such as 1074: get it"):
        build(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda found: found["annotations"][3].pop("image_id"), r"is no record of an image or a caption \(KeyError"),
        (lambda found: found["annotations"][3].update(image_id="x"), "is no record of an image or a caption"),
        (lambda found: found["annotations"][3].update(caption=None), "is no record of an image or a caption"),
        (
            lambda found: found["images"][3].update(file_name="../a.jpg"),
            r"file_name is '\.\./a\.jpg': expected the name",
        ),
        (lambda found: found.update(annotations=[]), "has 6 images and 0 captions: expected `images` with `file_name`"),
    ],
)
def test_records_of_another_kind_are_named(tmp_path, edit, message):
    change(write(tmp_path), edit)
    with pytest.raises(ValueError, match=r"captions_train2017\.json .*" + message):
        build(tmp_path).prepare_data()


@pytest.mark.parametrize("content", [b'{"images": [', b"\xe9", b"[" * 100_000])
def test_a_file_that_is_cut_off_is_named(tmp_path, content):
    file_of(write(tmp_path)).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"captions_train2017\.json is damaged: .*get it anew, from https://cocodataset"
    ):
        build(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("val2017", r"val2017 is missing: expected the pictures of val2017\.zip, from https://cocodataset"),
        (
            "annotations",
            r"captions_train2017\.json is missing: .*annotations_trainval2017\.zip from https://cocodataset",
        ),
    ],
)
def test_what_is_missing_is_named_and_where_it_is_offered(tmp_path, gone, message):
    (write(tmp_path) / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=message):
        build(tmp_path)


def test_the_other_year_is_missing(tmp_path):
    with pytest.raises(ValueError, match="train2014 is missing"):
        build(write(tmp_path), year=2014)
