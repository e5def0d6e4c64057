"""Strings in two tensors: what goes in comes out, and workers share it."""

import os
import pickle
from array import array
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from mmdiffusion.data.strings import Strings, tensor_of

TEXTS = ["a red bird", "", "caf\u00e9 \u9ce5", os.fsdecode(b"caf\xe9.jpg"), "end"]


def test_what_goes_in_comes_out():
    strings = Strings.of(iter(TEXTS))
    assert list(strings) == TEXTS
    assert [strings[row] for row in (4, 0, 2)] == ["end", "a red bird", TEXTS[2]]
    assert len(strings) == len(TEXTS)
    assert "end" in strings


def test_none_is_allowed():
    assert list(Strings.of([])) == []


@pytest.mark.parametrize("row", [-1, 5])
def test_rows_outside_are_refused(row):
    with pytest.raises(IndexError):
        Strings.of(TEXTS)[row]


def test_they_cost_their_bytes_and_one_number_each():
    strings = Strings.of(str(number) for number in range(1000))
    assert strings.num_bytes == sum(len(str(number)) for number in range(1000)) + 8 * 1000


def test_another_process_is_handed_the_same_memory():
    strings = Strings.of(TEXTS * 1000)
    sent = ForkingPickler.dumps(strings)
    assert len(sent) < 2000, "the bytes themselves would be 35 kB"
    received = pickle.loads(sent)
    assert received[4002] == TEXTS[2]
    strings.data[0] = ord("A")
    assert received[0] == "A red bird"


def test_numbers_stay_where_they_are():
    numbers = array("q", [3, 5])
    tensor = tensor_of(numbers, torch.int64)
    numbers[1] = 7
    assert tensor.tolist() == [3, 7]
