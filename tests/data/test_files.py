"""Splits read from disk: draws through epochs, damage up to a limit, bytes that become floats."""

import pytest
import torch
from torch.utils.data import DataLoader

from mmdiffusion.data.base import Order, whole_batch
from mmdiffusion.data.files import DamagedError, FileDataModule, Files, floats

SIZE = 20


class Numbers(Files):
    """Row r is a picture of r; some rows are damaged."""

    def __init__(self, bad=(), max_bad_fraction=0.0, size=SIZE):
        super().__init__(size, max_bad_fraction, seed=0)
        self.bad = bad

    def read(self, row, generator):
        if row in self.bad:
            raise DamagedError(f"{row}.png", "cut off")
        crop = torch.randint(1000, (), generator=generator)
        return {"image": torch.full((1, 2, 2), row, dtype=torch.uint8), "caption": f"number {row}", "crop": crop}


class Module(FileDataModule):
    def __init__(self, num_workers=0):
        super().__init__(4, 4, num_workers, 0.0, 0)
        self.indexed = 0

    @property
    def spec(self):
        return {}

    def files(self, name):
        self.indexed += 1
        return Numbers()


def test_batch_has_the_rows_in_order():
    batch = Numbers().__getitems__([3, 0])
    assert batch["index"].tolist() == [3, 0]
    assert batch["caption"] == ["number 3", "number 0"]
    assert batch["image"][:, 0, 0, 0].tolist() == [3, 0]


def test_later_epochs_have_the_same_rows_and_other_crops():
    files = Numbers()
    first, again, later = (files.__getitems__(range(start, start + SIZE)) for start in (0, 0, SIZE))
    assert torch.equal(first["index"], later["index"])
    assert torch.equal(first["crop"], again["crop"])
    assert not torch.equal(first["crop"], later["crop"])


def test_damaged_sample_is_replaced_by_the_next_that_can_be_read():
    files = Numbers(bad=(4, 5), max_bad_fraction=0.1)
    assert files.__getitems__([3, 4, 5])["index"].tolist() == [3, 6, 6]
    assert list(files.damaged.values()) == ["4.png: cut off", "5.png: cut off"]


def test_after_the_last_row_comes_the_first():
    assert Numbers(bad=(19,), max_bad_fraction=0.1)[19]["index"] == 0


def test_first_damaged_sample_stops_by_default():
    with pytest.raises(ValueError, match=r"1 of 20 samples are damaged, max_bad_fraction is 0\.0.*7\.png: cut off"):
        Numbers(bad=(7,))[7]


def test_message_names_ten():
    files = Numbers(bad=range(90), max_bad_fraction=0.11, size=100)
    with pytest.raises(ValueError, match=r"12 of 100.*Damaged: 0\.png.*; 9\.png: cut off \(and 2 more\)$") as caught:
        files[0]
    assert "10.png" not in str(caught.value)


def test_all_damaged_is_an_error():
    with pytest.raises(ValueError, match="damaged"):
        Numbers(bad=range(SIZE), max_bad_fraction=0.99)[0]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_limit_is_a_share(share):
    with pytest.raises(ValueError, match=r"max_bad_fraction is .*: expected a share"):
        Numbers(max_bad_fraction=share)


def test_bytes_become_floats_and_the_rest_stays():
    batch = {"image": torch.tensor([0, 255], dtype=torch.uint8), "label": torch.tensor([3]), "caption": ["a"]}
    made = floats(batch)
    assert made["image"].tolist() == [-1, 1]
    assert made["label"] is batch["label"]
    assert made["caption"] == ["a"]


def test_split_is_indexed_once_and_rows_are_floats():
    module = Module()
    assert module.rows("val", [255 % SIZE, SIZE + 1])["image"].dtype == torch.float32
    assert module.rows("val", [1])["index"].tolist() == [1]
    assert module.indexed == 1


class Told(Numbers):
    """Its captions need no pictures."""

    @property
    def told(self):
        return ("caption",)

    def tell(self, row, generator):
        return {"caption": f"number {row}"}


def test_what_the_index_tells_is_had_without_reading():
    files = Told(bad=range(SIZE))
    told = files.fetch([3, SIZE], ["caption", "index"])
    assert told["caption"] == ["number 3", "number 0"]
    assert told["index"].tolist() == [3, 0]
    with pytest.raises(ValueError, match="damaged"):
        files.fetch([3], ["caption", "image"])


def test_some_entries_are_those_of_all():
    whole, files = Numbers().__getitems__([3, 4]), Numbers()
    some = files.fetch([3, 4], ["caption", "crop"])
    assert list(some) == ["caption", "crop"]
    assert some["caption"] == whole["caption"]
    assert torch.equal(some["crop"], whole["crop"])
    assert set(Module().rows("test", [1, 2], ["image"])) == {"image"}


def test_workers_read_what_one_process_reads():
    batches = [list(Module(num_workers).val_dataloader()) for num_workers in (0, 2)]
    for one, two in zip(*batches, strict=True):
        assert all(one[name] == two[name] if name == "caption" else torch.equal(one[name], two[name]) for name in one)


def test_damage_in_a_worker_is_told():
    loader = DataLoader(Numbers(bad=(2,)), batch_size=4, num_workers=1, collate_fn=whole_batch)
    with pytest.raises(ValueError, match=r"2\.png: cut off"):
        list(loader)


def test_order_counts_on_through_epochs():
    order = Order(Numbers(), 1, 0, seed=1, drop_last=True)
    drawn = []
    for epoch in range(2):
        order.set_epoch(epoch)
        drawn.append(list(order))
    assert sorted(drawn[0]) == list(range(SIZE))
    assert sorted(drawn[1]) == list(range(SIZE, 2 * SIZE))


def test_negative_workers_are_refused():
    with pytest.raises(ValueError, match="num_workers is -1"):
        Module(-1)
