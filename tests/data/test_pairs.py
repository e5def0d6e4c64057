"""Pictures with captions: which caption, which rows, and what a batch holds."""

import pytest
import torch

from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.pairs import PairDataModule, PairFiles, Pairs
from mmdiffusion.types import ImageSpec, NumberSpec, TextSpec

NUM_PICTURES = 12


class Numbers(Pairs):
    """Picture r is filled with r and has r % 3 + 1 captions."""

    def __init__(self, size=NUM_PICTURES, bad=()):
        self.size, self.bad = size, bad

    def __len__(self):
        return self.size

    def picture(self, row):
        if row in self.bad:
            raise DamagedError(f"{row}.jpg", "cut off")
        return torch.full((3, 9, 12), row, dtype=torch.uint8)

    def captions(self, row):
        if row in self.bad:
            raise DamagedError(f"{row}.txt", "no caption")
        return [f"picture {row} caption {which}" for which in range(row % 3 + 1)]

    def labels(self, row):
        return {"label": row * 10}


class Module(PairDataModule):
    def __init__(self, num_val=0, eval_captions="first", size=4, max_words=64, has_test=True):
        options = {"batch_size": 2, "eval_batch_size": 2, "num_workers": 0, "max_bad_fraction": 0.0, "seed": 0}
        super().__init__(size, num_val, eval_captions, max_words, **options)
        self.has_test, self.indexed = has_test, []

    def pairs(self, part):
        self.indexed.append(part)
        return Numbers(NUM_PICTURES if part == "train" else 5)


def files(captions, rows=range(NUM_PICTURES), max_words=64, **options):
    return PairFiles(Numbers(**options), torch.tensor(rows), Crop(4), captions, max_words, 0.9, 0)


def test_a_batch_has_picture_caption_and_labels():
    batch = files("first", rows=[3, 5, 7]).__getitems__([2, 0])
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (2, 3, 4, 4)
    assert batch["image"].amax((1, 2, 3)).tolist() == batch["image"].amin((1, 2, 3)).tolist() == [7, 3]
    assert batch["caption"] == ["picture 7 caption 0", "picture 3 caption 0"]
    assert batch["label"].tolist() == [70, 30]
    assert batch["picture"].tolist() == batch["index"].tolist() == [2, 0]


def test_all_captions_come_in_turn_with_their_picture():
    every = files("all", rows=[5, 0, 4])
    batch = every.__getitems__(range(len(every)))
    expected = [("5", which) for which in range(3)] + [("0", 0)] + [("4", which) for which in range(2)]
    assert batch["caption"] == [f"picture {picture} caption {which}" for picture, which in expected]
    assert batch["picture"].tolist() == [0, 0, 0, 1, 2, 2]
    assert batch["index"].tolist() == list(range(6))
    assert batch["label"].tolist() == [50] * 3 + [0] + [40] * 2


def test_captions_are_drawn_evenly_by_the_number_of_the_draw():
    drawn = files("drawn")
    captions = [drawn[2 + epoch * NUM_PICTURES]["caption"] for epoch in range(300)]
    counts = [captions.count(f"picture 2 caption {which}") for which in range(3)]
    assert sum(counts) == 300
    assert min(counts) > 70
    assert captions == [drawn[2 + epoch * NUM_PICTURES]["caption"] for epoch in range(300)]


def test_captions_lose_their_end():
    assert files("first", max_words=3)[1]["caption"] == "picture 1 caption"


def test_a_damaged_picture_does_not_move_the_captions_of_others():
    every = files("all", rows=[2, 3, 5], bad=(3,))
    batch = every.__getitems__([0, 2, 4, 6])
    assert batch["caption"] == [
        "picture 2 caption 0",
        "picture 2 caption 2",
        "picture 5 caption 0",
        "picture 5 caption 2",
    ]


def test_validation_is_spread_over_the_training_pictures():
    module = Module(num_val=3)
    train, val = (
        torch.as_tensor(module.rows(name, range(module.num_rows(name)))["label"]) for name in ("train", "val")
    )
    assert (val // 10).tolist() == [0, 4, 8]
    assert sorted(torch.cat([train, val]) // 10) == list(range(NUM_PICTURES))
    assert module.num_rows("test") == 5
    assert sorted(module.indexed) == ["test", "train"]


def test_without_pictures_for_validation_it_is_on_test():
    module = Module()
    assert [module.num_rows(name) for name in ("train", "val", "test")] == [NUM_PICTURES, 5, 5]


def test_without_a_test_part_it_is_on_validation():
    module = Module(num_val=2, has_test=False)
    assert [module.num_rows(name) for name in ("train", "val", "test")] == [NUM_PICTURES - 2, 2, 2]
    assert module.indexed == ["train"]


def test_all_captions_are_for_evaluation_only():
    module = Module(num_val=3, eval_captions="all")
    assert [module.num_rows(name) for name in ("train", "val", "test")] == [9, 1 + 2 + 3, 1 + 2 + 3 + 1 + 2]


def test_training_crops_vary_and_others_do_not():
    module = Module()
    assert module.split("train").crop == Crop(4, random=True)
    assert module.split("val").crop == Crop(4)


def test_all_splits_are_indexed_before_anything_is_written():
    module = Module()
    module.prepare_data()
    assert sorted(module.indexed) == ["test", "train"]


def test_the_spec_says_what_a_batch_holds():
    assert Module(size=7, max_words=9).spec == {
        "image": ImageSpec(3, 7),
        "caption": TextSpec(9),
        "picture": NumberSpec(),
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 0}, "size is 0: expected at least 1"),
        ({"num_val": -1}, "num_val is -1: expected at least 0"),
        ({"max_words": 0}, "max_words is 0: expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Module(**setting)


def test_validation_leaves_something_to_train_on():
    with pytest.raises(ValueError, match="num_val is 12: expected less than 12, the training pictures"):
        Module(num_val=12).split("train")
