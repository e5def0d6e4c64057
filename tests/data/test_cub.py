"""CUB: folders as they are unpacked, two divisions, captions mended, boxes, and what is missing."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiffusion.data import CUB
from mmdiffusion.data.cub_index import around
from tests.data.pictures import scene

pytestmark = pytest.mark.filterwarnings("ignore:.*; published are")
CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")
NAMES = [f"{folder}/{folder[4:].title()}_{number:04d}_7" for folder in CLASSES for number in range(3)]
"""Names of files have other capitals than those of folders, as in the public archive."""
IDS = [3 + 7 * row for row in range(len(NAMES))]
"""With gaps, as in a subset."""
TRAIN = {"species": NAMES[:6], "official": [name for row, name in enumerate(NAMES) if row % 3]}
TEST = {division: [name for name in NAMES if name not in names] for division, names in TRAIN.items()}


def captions(name):
    mended = f"a bird of {name.split('/')[1].replace('_', ' ').lower()} on the left ."
    return [mended, "this bird has a dark grey belly", "short"]


def write_lists(home):
    rows = list(zip(IDS, NAMES, strict=True))
    (home / "images.txt").write_text("".join(f"{row} {name}.jpg\n" for row, name in rows))
    official = [f"{row} {int(name in TRAIN['official'])}\n" for row, name in reversed(rows)]
    (home / "train_test_split.txt").write_text("".join(official))
    boxes = [f"{row} {10.0 + number} 5.0 20.0 12.0\n" for number, (row, _) in enumerate(rows)]
    (home / "bounding_boxes.txt").write_text("".join(boxes))
    (home / "classes.txt").write_text("".join(f"{int(folder[:3])} {folder}\n" for folder in CLASSES))


def write_pictures(home):
    for row, name in enumerate(NAMES):
        (home / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        picture = scene(60 + row, 40, mode="L" if row == 4 else "RGB")
        picture.save(home / "images" / f"{name}.jpg")


def write_texts(folder):
    for name in NAMES:
        first, second, third = captions(name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        strange = second.replace(" ", "\ufffd\ufffd")
        (folder / f"{name}.txt").write_text(f"{first}\n{strange}\n{third}\n\n", encoding="utf-8")


def write_pickles(root):
    for part, names in (("train", TRAIN["species"]), ("test", TEST["species"])):
        (root / part).mkdir()
        (root / part / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=2))


@pytest.fixture
def root(tmp_path):
    """The layout of AttnGAN."""
    home = tmp_path / "CUB_200_2011"
    write_pictures(home)
    write_lists(home)
    write_texts(tmp_path / "text")
    write_pickles(tmp_path)
    return tmp_path


def build(root, **settings):
    return CUB(str(root), **{"size": 16, "num_workers": 0, "batch_size": 2} | settings)


def names_of(data, split):
    """Pictures of a split, by what their first captions say."""
    said = [
        caption for caption in data.rows(split, range(data.num_rows(split)))["caption"] if caption.endswith("left .")
    ]
    first = {captions(name)[0]: name for name in NAMES}
    return [first[caption] for caption in said]


def test_a_batch_has_picture_caption_and_species(root):
    batch = build(root).rows("test", [0, 2])
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["caption"] == [captions(NAMES[6])[0], captions(NAMES[8])[0]]
    assert batch["label"].tolist() == [199, 199]
    assert batch["picture"].tolist() == [0, 2]


@pytest.mark.parametrize("division", ["species", "official"])
def test_divisions_are_those_of_their_lists(root, division):
    data = build(root, division=division, max_words=99)
    assert names_of(data, "test") == TEST[division]
    assert data.num_rows("train") == len(TRAIN[division])
    labels = data.rows("train", range(data.num_rows("train")))["label"].tolist()
    assert labels == [int(name[:3]) - 1 for name in TRAIN[division]]


def test_every_caption_is_mended_and_comes_with_its_picture(root):
    data = build(root, eval_captions="all")
    batch = data.rows("test", range(data.num_rows("test")))
    assert batch["caption"] == [caption for name in TEST["species"] for caption in captions(name)]
    assert batch["picture"].tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_captions_and_species_are_had_without_pictures(root):
    data, entries = build(root), ["caption", "label", "picture", "index"]
    for split in ("train", "test"):
        rows = range(data.num_rows(split))
        told, whole = data.rows(split, rows, entries), data.rows(split, rows)
        assert list(told) == entries
        assert all(list(told[name]) == list(whole[name]) for name in entries)
    for path in root.rglob("*.jpg"):
        path.unlink()
    assert data.rows("test", range(2), ["caption"])["caption"]


def test_training_draws_from_the_captions_of_the_picture(root):
    files = build(root).split("train")
    drawn = {files[2 + epoch * len(files)]["caption"] for epoch in range(40)}
    assert drawn == set(captions(NAMES[2]))


def test_grey_pictures_have_three_equal_channels(root):
    image = build(root).rows("train", [4])["image"][0]
    assert torch.equal(image[0], image[1])
    assert image.std() > 0.1


def test_species_have_their_names(root):
    label = build(root).spec["label"]
    assert label.num_classes == 200
    assert label.names == ("Black footed Albatross", "Laysan Albatross", "Common Yellowthroat")


def test_pictures_beside_doubled_texts_need_no_lists(tmp_path):
    """The layout of VQ-Diffusion and CDCD."""
    write_pictures(tmp_path)
    write_texts(tmp_path / "text" / "text")
    write_pickles(tmp_path)
    data = build(tmp_path)
    assert names_of(data, "test") == TEST["species"]
    assert data.spec["label"].names == ()


def test_a_doubled_archive_and_other_names_of_texts(root):
    (root / "outer").mkdir()
    shutil.move(root / "CUB_200_2011", root / "outer" / "CUB_200_2011")
    shutil.move(root / "outer", root / "CUB_200_2011")
    shutil.move(root / "text", root / "text_c10")
    assert build(root, division="official").num_rows("test") == len(TEST["official"])


def test_a_square_around_the_bird(root):
    data = build(root, around_bird=True)
    with Image.open(root / "CUB_200_2011" / "images" / f"{NAMES[0]}.jpg") as picture:
        whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    shown = data.part("train").picture(0)  # box 10 5 20 12: centre (20, 11), reach 15
    assert shown.shape == (3, 26, 30)
    assert (shown.int() - whole[:, :26, 5:35].int()).abs().max() <= 4  # decoders differ a little
    assert build(root).part("train").picture(0).shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ([10.0, 5.0, 20.0, 12.0], (slice(0, 26), slice(5, 35))),
        ([50.9, 30.0, 9.5, 9.9], (slice(28, 40), slice(48, 60))),
        ([0.0, 0.0, 60.0, 40.0], (slice(0, 40), slice(0, 60))),
    ],
)
def test_squares_end_where_the_picture_ends(box, part):
    pixels = torch.arange(3 * 40 * 60).reshape(3, 40, 60).to(torch.uint8)
    assert torch.equal(around(pixels, box), pixels[:, *part])


def test_a_box_outside_of_the_picture_is_damage(root):
    boxes = root / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace(f"{IDS[0]} 10.0", f"{IDS[0]} 990.0"))
    with pytest.raises(ValueError, match=r"_0000_7\.jpg: its box in bounding_boxes\.txt, \[990\.0, 5\.0"):
        build(root, around_bird=True).split("train")[0]


@pytest.mark.parametrize("division", ["species", "official"])
def test_a_part_of_the_pictures_is_said_to_be_one(root, division):
    published = {"species": "8,855 training pictures, 2,933 test", "official": "5,994 training pictures, 5,794 test"}
    said = f"6 training pictures, 3 test pictures; published are {published[division]} pictures"
    with pytest.warns(UserWarning, match=said):
        build(root, division=division)


@pytest.mark.parametrize(
    ("gone", "division", "message"),
    [
        (
            "CUB_200_2011/images",
            "species",
            r"images is missing: .*CUB_200_2011\.tgz, from https://www\.vision\.caltech",
        ),
        ("text", "species", r"text is missing: expected the captions of CUB, AttnGAN's metadata"),
        ("test", "species", r"test/filenames\.pickle is missing: .*AttnGAN.*or set division to official"),
        ("CUB_200_2011/images.txt", "official", r"images\.txt is missing: .*CUB_200_2011\.tgz"),
        ("CUB_200_2011/train_test_split.txt", "official", r"train_test_split\.txt is missing"),
    ],
)
def test_what_is_missing_is_named_and_where_it_is_offered(root, gone, division, message):
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=message):
        build(root, division=division)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent, which is missing: expected a folder with CUB_200_2011 and text"):
        build(tmp_path / "absent")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("CUB_200_2011/images/{}.jpg", None, r"no .*Albatross_0001_7\.jpg"),
        ("text/{}.txt", None, r"no .*Albatross_0001_7\.txt"),
        ("text/{}.txt", b"\n \n", r"_0001_7\.txt has no caption"),
        ("text/{}.txt", b"caf\xe9", r"_0001_7\.txt: not UTF-8 \(byte 0xe9 at 3\)"),
    ],
)
def test_a_picture_that_lacks_something_is_named(root, file, content, message):
    path = root / file.format(NAMES[1])
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 6 samples cannot be used: 001.*" + message):
        build(root).prepare_data()
    with pytest.warns(UserWarning, match="1 of 6 samples cannot be used"):
        assert build(root, max_bad_fraction=0.2).num_rows("train") == 5


def test_a_picture_without_a_box_is_named(root):
    boxes = root / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text("".join(line for line in boxes.read_text().splitlines(True) if not line.startswith(f"{IDS[1]} ")))
    with pytest.raises(ValueError, match=r"1 of 6 .*_0001_7: no line in bounding_boxes\.txt"):
        build(root, around_bird=True).split("train")


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this ran')",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (Payload(), r"train/filenames\.pickle is no pickle of arrays and plain values: it names builtins\.exec"),
        ({"a": 1}, "is no list of names: expected texts such as 001"),
        (["001.A/b", b"001.A/c"], "is no list of names"),
        (["../001.A/b"], "is no list of names"),
        (["201.A/b"], "is no list of names"),
    ],
)
def test_lists_of_another_kind_are_refused(root, names, message):
    (root / "train" / "filenames.pickle").write_bytes(pickle.dumps(names))
    with pytest.raises(ValueError, match=message):
        build(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 001.A/b.jpg\nx 001.A/c.jpg\n", r"images\.txt is damaged: expected lines of a number and more"),
        ("1\n", r"images\.txt is damaged"),
        ("1 ../../b.jpg\n", r"images\.txt names files elsewhere: expected <class>/<name>\.jpg"),
    ],
)
def test_damaged_lists_are_named(root, content, message):
    (root / "CUB_200_2011" / "images.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        build(root, division="official")
