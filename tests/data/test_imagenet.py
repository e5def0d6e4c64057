"""ImageNet from self-made files in the published layouts."""

import numpy as np
import pytest
import scipy.io
import torch

from mmdiffusion.data.imagenet import ImageNet
from mmdiffusion.data.synsets import read_synsets
from mmdiffusion.types import LabelSpec
from tests.data.pictures import save

pytestmark = pytest.mark.filterwarnings("ignore:.*; published are")

WNIDS = [f"n{2 * number + 1:08d}" for number in range(1000)]
NAMES = [f"beast {number}, Bestia {number}" for number in range(1000)]
NAMES[7] = NAMES[700] = "crane"
NAMES[8], NAMES[9] = "maillot", "maillot, tank suit"
PRESENT = (3, 7, 700)
SUFFIXES = ("JPEG", "jpg", "JPG", "png")


def write_mapping(root):
    lines = [f"{wnid} {name}" for wnid, name in zip(WNIDS, NAMES, strict=True)]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(lines) + "\n")


def write_devkit(folder, numbers):
    """The development kit: class numbers of its own, and one for each validation picture."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(number, wnid, name) for number, wnid, name in zip(numbers, WNIDS, NAMES, strict=True)]
    synsets = np.array([*rows, (1001, "n99999999", "animal")], dtype=kinds)
    folder.mkdir(parents=True)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})
    truth = [str(numbers[PRESENT[i % 3]]) for i in range(9)]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(truth) + "\n")


def write_pictures(folder, flat=False):
    """Four training pictures a class, the second grey, and three for validation."""
    for number in PRESENT:
        for i, suffix in enumerate(SUFFIXES):
            path = folder / "train" / WNIDS[number] / f"{WNIDS[number]}_{i}.{suffix}"
            save(path, 30 + i, 40, "L" if i == 1 else "RGB", "PNG" if suffix == "png" else "JPEG")
    for i in range(9):
        place = folder / "val" if flat else folder / "val" / WNIDS[PRESENT[i % 3]]
        save(place / f"ILSVRC2012_val_{i + 1:08d}.JPEG", 40, 30 + i)


@pytest.fixture
def root(tmp_path):
    write_mapping(tmp_path)
    write_pictures(tmp_path)
    save(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG")
    return tmp_path


def build(root, **settings):
    return ImageNet(str(root), **{"size": 16, "batch_size": 3, "num_workers": 0} | settings)


def labels(data, name):
    return data.rows(name, range(data.num_rows(name)))["label"].tolist()


def test_labels_are_those_of_all_classes(root):
    data = build(root)
    assert labels(data, "train") == [3] * 3 + [7] * 3 + [700] * 3
    assert labels(data, "val") == [3, 7, 700]
    assert labels(data, "test") == [3] * 3 + [7] * 3 + [700] * 3
    label = data.spec["label"]
    assert isinstance(label, LabelSpec)
    assert label.num_classes == len(set(label.names)) == 1000
    assert label.names[3] == "beast 3"
    assert label.names[700] == f"crane ({WNIDS[700]})"
    assert label.names[8:10] == ("maillot", "maillot, tank suit")


def test_batch_is_square_and_grey_pictures_have_three_channels(root):
    batch = build(root).rows("train", range(9))
    assert batch["image"].shape == (9, 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert -1 <= batch["image"].min() < batch["image"].max() <= 1
    assert torch.equal(batch["image"][1, 0], batch["image"][1, 2])
    assert batch["index"].tolist() == list(range(9))


def test_held_out_pictures_are_not_trained_on(root):
    archive = build(root, held_out=2)
    trained = set(archive.files("train").pictures.names)
    held_out = set(archive.files("val").pictures.names)
    assert len(trained) == len(held_out) == 6
    assert not trained & held_out


def test_without_held_out_pictures_validation_is_the_published_one(root):
    data = build(root, held_out=0)
    assert data.num_rows("train") == 12
    assert list(data.files("val").pictures.names) == list(data.files("test").pictures.names)


def test_subsets_keep_their_labels(root):
    data = build(root, classes=[WNIDS[700]], per_class=2)
    assert labels(data, "train") == [700, 700]
    assert labels(data, "test") == [700] * 3


def test_kaggles_folders_and_labels(tmp_path):
    write_mapping(tmp_path)
    write_pictures(tmp_path / "ILSVRC" / "Data" / "CLS-LOC", flat=True)
    rows = [f"ILSVRC2012_val_{i + 1:08d},{WNIDS[PRESENT[i % 3]]} 1 2 3 4 " for i in range(9)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    assert labels(build(tmp_path), "test") == [3, 7, 700] * 3


def test_development_kit_numbers_differ_and_labels_do_not(tmp_path):
    write_pictures(tmp_path, flat=True)
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12" / "data", [1000 - number for number in range(1000)])
    data = build(tmp_path, classes=[WNIDS[3], WNIDS[700]])
    assert labels(data, "test") == [3, 700] * 3
    assert data.spec["label"].names[3] == "beast 3"


def test_doubled_folder_is_found(tmp_path):
    root = tmp_path / "imagenet" / "imagenet"
    root.mkdir(parents=True)
    write_mapping(root)
    write_pictures(root)
    assert build(tmp_path / "imagenet").num_rows("train") == 9


def test_all_folders_number_the_classes_themselves(tmp_path):
    synsets = read_synsets([tmp_path], WNIDS[::-1])
    assert synsets.wnids == tuple(WNIDS)
    assert synsets.names == tuple(WNIDS)


def test_a_part_is_told(root):
    with pytest.warns(UserWarning, match="12 training pictures, 3 classes; published are 1,281,167 training pictures"):
        build(root).num_rows("train")


def test_hidden_patches_depend_on_the_index_alone(root):
    data = build(root, size=32, num_masked=2)
    one, again = data.rows("val", [2])["masked"], data.rows("val", [0, 1, 2])["masked"]
    assert torch.equal(one[0], again[2])
    assert not torch.equal(again[1, 3], again[2, 3])
    assert (one[0, 3] == 0).sum() <= 2 * 16 * 16
    assert torch.equal(one[:, :3], data.rows("val", [2])["image"] * one[:, 3:])
    assert data.spec["masked"].size == 32


def test_labels_are_had_without_pictures_and_masks_with_them(root):
    data = build(root, num_masked=2)
    whole, some = data.rows("test", [0, 1]), data.rows("test", [0, 1], ["label", "masked"])
    assert list(some) == ["label", "masked"]
    torch.testing.assert_close(some["masked"], whole["masked"], equal_nan=True)
    for path in (*root.rglob("*.JPEG"), *root.rglob("*.jpeg")):
        path.unlink()
    assert torch.equal(data.rows("test", [0, 1], ["label"])["label"], whole["label"])


def test_loader_hands_over_bytes_and_the_hook_makes_floats(root):
    data = build(root, num_masked=1)
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].dtype == torch.uint8
    assert data.on_after_batch_transfer(batch, 0)["masked"].dtype == torch.float32


def test_damaged_picture_is_named(root):
    path = root / "train" / WNIDS[3] / f"{WNIDS[3]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"1 of 9 samples are damaged.*{WNIDS[3]}_0\.JPEG"):
        build(root).rows("train", [0])
    assert build(root, max_bad_fraction=0.2).rows("train", [0])["index"].tolist() == [1]


# Mistakes ---------------------------------------------------------------------------------------------------------


def test_missing_root(tmp_path):
    with pytest.raises(ValueError, match=r"which is missing: expected a folder with train/.*image-net\.org"):
        build(tmp_path / "none")


def test_archives_that_are_not_unpacked(tmp_path):
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(ValueError, match=r"it has ILSVRC2012_img_train\.tar: .*; unpack it"):
        build(tmp_path)


def test_class_folders_as_root(root):
    with pytest.raises(ValueError, match="these are class folders: give the folder that has train"):
        build(root / "train")


def test_no_numbers_of_classes(root):
    (root / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(ValueError, match=r"has 3 class folders and no LOC_synset_mapping\.txt: expected.*kaggle"):
        build(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [("n01440764 tench\n", "1 lines, expected 1000"), ("n01440764\n" * 1000, "line 1 is no 'wnid name'")],
)
def test_damaged_list_of_classes(root, text, message):
    (root / "LOC_synset_mapping.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        build(root)


def test_damaged_development_kit(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "meta.mat").write_bytes(b"MATLAB 5.0 no")
    with pytest.raises(ValueError, match=r"meta\.mat is not the list of classes"):
        build(tmp_path)


def test_unknown_class(root):
    with pytest.raises(ValueError, match="classes has 'tench': expected wnids"):
        build(root, classes=["tench"])


def test_class_without_folder(root):
    with pytest.raises(ValueError, match=f"has no folder {WNIDS[4]}"):
        build(root, classes=[WNIDS[4]])


def test_folder_that_is_no_class(root):
    (root / "train" / "mine").mkdir()
    with pytest.raises(ValueError, match="train has 'mine': expected wnids"):
        build(root)


def test_class_with_too_few_pictures(root):
    with pytest.raises(ValueError, match=r"has 4 pictures: expected more than held_out, 4"):
        build(root, held_out=4).num_rows("train")


def test_no_published_validation(root):
    for path in (root / "val").rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(ValueError, match=r"val has no pictures of the 3 classes.*ILSVRC2012_img_val\.tar"):
        build(root).num_rows("test")


def test_flat_validation_without_labels(tmp_path):
    write_mapping(tmp_path)
    write_pictures(tmp_path, flat=True)
    with pytest.raises(ValueError, match=r"lie in no class folders, and LOC_val_solution\.csv is missing"):
        build(tmp_path).num_rows("test")


def test_flat_validation_picture_that_is_not_listed(tmp_path):
    write_mapping(tmp_path)
    write_pictures(tmp_path, flat=True)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    with pytest.raises(ValueError, match=r"ILSVRC2012_val_00000001\.JPEG is not in the list of labels"):
        build(tmp_path).num_rows("test")


@pytest.mark.parametrize(("name", "value"), [("per_class", 0), ("held_out", -1), ("num_masked", -1), ("size", 0)])
def test_setting_out_of_range(root, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}: expected at least"):
        build(root, **{name: value})
