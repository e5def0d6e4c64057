"""Splits in memory and their loaders, on a data set of numbers."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import TensorDataset

from mmdiffusion.data.base import Arrays, DataModule

SIZE = 10


def columns():
    return {"image": torch.randn(SIZE, 1, 2, 2), "label": torch.arange(SIZE) % 3, "caption": [*"abcdefghij"]}


class Numbers(DataModule):
    @property
    def spec(self):
        return {}

    def split(self, name):
        return Arrays(columns())


class OnDisk(Numbers):
    def split(self, name):
        return TensorDataset(torch.zeros(SIZE))


def order(loader):
    return [index for batch in loader for index in batch["index"].tolist()]


# Arrays --------------------------------------------------------------------------------------------------------


def test_batch_at_once_is_its_samples_stacked():
    arrays, indices = Arrays(columns()), [7, 0, 7, 3]
    batch, samples = arrays.__getitems__(indices), [arrays[i] for i in indices]
    assert batch["caption"] == [sample["caption"] for sample in samples]
    for name in ("index", "image", "label"):
        assert torch.equal(torch.as_tensor(batch[name]), torch.stack([sample[name] for sample in samples]))


def test_index_is_the_position():
    assert [int(Arrays(columns())[i]["index"]) for i in range(SIZE)] == list(range(SIZE))


def test_given_index_is_kept():
    arrays = Arrays(columns() | {"index": torch.arange(SIZE) + 100})
    assert int(arrays[3]["index"]) == 103


def test_columns_of_different_lengths_are_our_own_mistake():
    with pytest.raises(AssertionError, match="columns of different lengths"):
        Arrays(columns() | {"label": torch.zeros(SIZE + 1)})


# Loaders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "val", "test", "predict"])
def test_loader_yields_batches_by_modality(name):
    batch = next(iter(getattr(Numbers(4, 4, 0), f"{name}_dataloader")()))
    assert set(batch) == {"index", "image", "label", "caption"}
    assert batch["image"].shape == (4, 1, 2, 2)
    assert batch["caption"] == [columns()["caption"][i] for i in batch["index"]]


@pytest.mark.parametrize("name", ["val", "test", "predict"])
def test_evaluation_loader_yields_everything_in_order(name):
    assert order(getattr(Numbers(4, 4, 0), f"{name}_dataloader")()) == list(range(SIZE))


def test_training_loader_drops_the_batch_that_is_not_full():
    batches = list(Numbers(4, 4, 0).train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [4, 4]
    assert len(set(order(batches))) == 8


def test_training_order_comes_from_the_seed():
    torch.manual_seed(1)
    first = order(Numbers(5, 4, 0).train_dataloader())
    torch.manual_seed(2)
    assert order(Numbers(5, 4, 0).train_dataloader()) == first
    assert order(Numbers(5, 4, 1).train_dataloader()) != first


def test_every_epoch_has_its_own_order_whatever_was_read_before():
    def epoch(loader, number):
        loader.sampler.set_epoch(number)
        return order(loader)

    loader = Numbers(5, 4, 0).train_dataloader()
    orders = [epoch(loader, number) for number in range(3)]
    assert len({tuple(numbers) for numbers in orders}) == 3
    assert epoch(Numbers(5, 4, 0).train_dataloader(), 2) == orders[2], "a run that goes on sees what it would have seen"
    loader.sampler.set_epoch(2)
    assert sorted(loader.sampler) == list(range(2 * SIZE, 3 * SIZE)), "draws are numbered on through the epochs"


def test_batch_as_large_as_the_split_is_the_largest():
    Numbers(SIZE, 4, 0).prepare_data()
    assert len(order(Numbers(SIZE, 4, 0).train_dataloader())) == SIZE
    with pytest.raises(ValueError, match="batch_size is 11: expected at most 10"):
        Numbers(SIZE + 1, 4, 0).prepare_data()


@pytest.mark.parametrize(
    ("processes", "batch_size", "eval_batch_size", "smallest"),
    [(1, 4, 3, 1), (1, 4, 5, 4), (2, 4, 3, 2), (3, 4, 3, 1), (2, 1, 3, 1)],
)
def test_smallest_batch_is_the_last_of_a_process_s_share(processes, batch_size, eval_batch_size, smallest):
    """Ten rows: two processes have five each, three have four, the last of them one twice."""
    data = Numbers(batch_size, eval_batch_size, 0)
    data.trainer = SimpleNamespace(world_size=processes)
    assert data.smallest_batch() == smallest


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("field", ["batch_size", "eval_batch_size"])
def test_empty_batches_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: expected at least 1"):
        Numbers(**{"batch_size": 1, "eval_batch_size": 1, "seed": 0} | {field: value})


# Columns -------------------------------------------------------------------------------------------------------


def test_columns_of_a_split_in_memory_are_its_values():
    values = Numbers(4, 4, 0).columns("val")
    assert len(values["image"]) == SIZE
    assert values["caption"] == columns()["caption"]


def test_columns_of_a_split_on_disk_are_refused():
    with pytest.raises(ValueError, match="OnDisk: the val split is not in memory"):
        OnDisk(4, 4, 0).columns("val")
