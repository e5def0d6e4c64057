"""Digits against what scikit-learn ships."""

import pytest
import torch
from sklearn.datasets import load_digits

from mmdiffusion.data import Digits
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, TextSpec

SIZES = {"train": 1257, "val": 180, "test": 360}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPLITS = pytest.mark.parametrize("split", SIZES)


@pytest.fixture(scope="module")
def digits():
    return Digits(batch_size=100, eval_batch_size=64)


@pytest.fixture(scope="module")
def source():
    """Levels of every pixel (0 to 16) and labels, as shipped."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).int(), torch.from_numpy(labels)


def levels(columns):
    return ((columns["image"] + 1) * 8).int().flatten(1)


def rows(levels, labels):
    return sorted(tuple(row) for row in torch.cat([levels, labels[:, None]], dim=1).tolist())


@SPLITS
def test_split_has_its_size(digits, split):
    assert len(digits.split(split)) == SIZES[split]


def test_splits_share_nothing_and_leave_nothing_out(digits, source):
    found = [digits.columns(split) for split in SIZES]
    together = torch.cat([levels(columns) for columns in found]), torch.cat([columns["label"] for columns in found])
    assert rows(*together) == rows(*source)
    assert len(set(rows(*source))) == 1797


@SPLITS
def test_classes_have_their_share_of_each_split(digits, source, split):
    counts = digits.columns(split)["label"].bincount(minlength=10)
    shares = source[1].bincount() * SIZES[split] / 1797
    assert (counts - shares).abs().max() < 2


def test_values_are_the_seventeen_levels(digits):
    values = torch.cat([digits.columns(split)["image"].flatten() for split in SIZES]).unique()
    assert torch.equal(values, torch.arange(17) / 8 - 1)


@SPLITS
def test_captions_name_the_labels(digits, split):
    columns = digits.columns(split)
    assert columns["caption"] == [f"a handwritten {WORDS[label]}" for label in columns["label"].tolist()]


@SPLITS
def test_index_is_the_position(digits, split):
    assert torch.equal(digits.columns(split)["index"], torch.arange(SIZES[split]))


def test_size_16_doubles_every_pixel(digits):
    large, small = (torch.as_tensor(module.columns("val")["image"]) for module in (Digits(size=16), digits))
    assert torch.equal(large, small.repeat_interleave(2, 2).repeat_interleave(2, 3))


@SPLITS
def test_splits_depend_on_neither_seed_nor_global_state(digits, split):
    torch.manual_seed(99)
    again, columns = Digits(seed=5).columns(split), digits.columns(split)
    assert torch.equal(torch.as_tensor(again["image"]), columns["image"])
    assert again["caption"] == columns["caption"]


def test_batch_fits_the_spec(digits):
    spec, batch = digits.spec, next(iter(digits.train_dataloader()))
    caption = TextSpec(3, ("a", "handwritten", *WORDS))
    assert spec == {"image": ImageSpec(1, 8, 17), "label": LabelSpec(10, tuple(WORDS)), "caption": caption}
    assert {word for text in digits.columns("train")["caption"] for word in text.split()} == set(caption.vocabulary)
    assert batch["image"].shape == (100, 1, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert batch["label"].dtype == torch.int64
    assert max(len(caption.split()) for caption in batch["caption"]) == 3


def test_spec_names_the_size():
    assert Digits(size=16).spec["image"] == ImageSpec(1, 16, 17)


def test_training_epoch_is_twelve_full_batches(digits):
    assert [len(batch["index"]) for batch in digits.train_dataloader()] == [100] * 12


def test_evaluation_ends_with_the_rest(digits):
    assert [len(batch["index"]) for batch in digits.val_dataloader()] == [64, 64, 52]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0: expected at least 1"),
        ({"size": 7}, "size is 7: expected 8 or 16"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Digits(**options)


def test_batch_larger_than_the_split_is_refused():
    with pytest.raises(ValueError, match="batch_size is 1258: expected at most 1257"):
        Digits(batch_size=1258).prepare_data()


# On demand -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def more():
    return Digits(mask_share=0.25, num_features=8, num_maps=4)


def test_entries_on_demand_are_described(more, digits):
    spec = more.spec
    assert spec == digits.spec | {
        "masked": MaskedSpec(1, 8),
        "feature": FeatureSpec((8,)),
        "feature_map": FeatureSpec((4, 4, 4)),
    }
    columns = more.columns("test")
    assert {columns[name].shape[1:] for name in ("masked",)} == {(2, 8, 8)}
    assert columns["feature"].shape == (360, 8)
    assert columns["feature_map"].shape == (360, 4, 4, 4)
    assert torch.equal(columns["image"], digits.columns("test")["image"])


@SPLITS
def test_a_share_of_the_patches_is_hidden(more, split):
    columns = more.columns(split)
    masked, visible = columns["masked"][:, :1], columns["masked"][:, 1:] == 1
    assert visible.double().mean((1, 2, 3)).unique().tolist() == [0.75]
    assert torch.equal(masked, torch.where(visible, columns["image"], 0))
    assert len(visible.unique(dim=0)) > 50
    assert torch.equal(columns["masked"], Digits(mask_share=0.25).columns(split)["masked"])


def test_features_are_principal_components_of_the_training_split(more):
    features = more.columns("train")["feature"].double()
    covariance = features.T @ features / len(features)
    variance = covariance.diagonal()
    torch.testing.assert_close(covariance, variance.diag(), atol=1e-4, rtol=0)
    assert variance.mean().item() == pytest.approx(1, rel=1e-4)
    assert (variance.diff() < 0).all()
    assert features.mean(0).abs().max() < 1e-4
    maps = more.columns("train")["feature_map"].double().movedim(1, -1).flatten(0, 2)
    variance = (maps.T @ maps / len(maps)).diagonal()
    assert variance.mean().item() == pytest.approx(1, rel=1e-4)


def test_features_tell_the_digit(more):
    """A nearest class mean reads test digits off eight numbers."""
    train, test = more.columns("train"), more.columns("test")
    means = torch.stack([train["feature"][train["label"] == digit].mean(0) for digit in range(10)])
    found = torch.cdist(test["feature"], means).argmin(1)
    assert (found == test["label"]).double().mean() > 0.9


def test_features_are_the_same_every_time(more):
    again = Digits(num_features=8)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert torch.equal(again.columns("val")["feature"], more.columns("val")["feature"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_share": 1.5}, "mask_share is 1.5: expected 0 to 1"),
        ({"num_features": 65}, "num_features is 65: expected 0 to 64"),
        ({"num_maps": -1}, "num_maps is -1: expected 0 to 64"),
    ],
)
def test_settings_on_demand_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Digits(**settings)
