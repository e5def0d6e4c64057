"""A probe knows a split again, whatever rounds differently, and nothing else; and it finds what is random."""

import pytest
import torch

from mmdiffusion.data import Digits
from mmdiffusion.data.probe import alike, check_probe, probe, varying, write_probe
from tests.data.in_files import InFiles


@pytest.mark.parametrize("build", [Digits, InFiles])
def test_a_split_is_known_again(tmp_path, build):
    write_probe(tmp_path / "probe", probe(build(), "val"))
    check_probe(tmp_path / "probe", probe(build(), "val"))


@pytest.mark.parametrize(
    ("other", "split"),
    [(InFiles(look=1), "val"), (InFiles(side=6), "val"), (InFiles(), "test"), (Digits(), "val")],
)
def test_other_data_are_not(tmp_path, other, split):
    write_probe(tmp_path / "probe", probe(InFiles(), "val"))
    with pytest.raises(
        ValueError, match=r"was prepared from other data: \w+ of rows \[0, .* differs; expected the same"
    ):
        check_probe(tmp_path / "probe", probe(other, split))


def test_another_crop_of_the_same_pictures_is_not(tmp_path):
    write_probe(tmp_path / "probe", probe(InFiles(), "train"))
    with pytest.raises(ValueError, match="image of rows"):
        check_probe(tmp_path / "probe", probe(InFiles(is_random=True), "train"))


def test_decoders_may_round_differently(tmp_path):
    write_probe(tmp_path / "probe", probe(InFiles(), "val"))
    rows = probe(InFiles(), "val")
    rows["image"] = (rows["image"].int() + torch.tensor([1, -1])[torch.arange(8) % 2]).clamp(0, 255).to(torch.uint8)
    check_probe(tmp_path / "probe", rows)


@pytest.mark.parametrize(
    ("stored", "found", "expected"),
    [
        (torch.tensor([1.0, -1.0]), torch.tensor([1.01, -1.0]), True),
        (torch.tensor([1.0, -1.0]), torch.tensor([1.1, -1.0]), False),
        (torch.tensor([3]), torch.tensor([4]), False),
        (torch.tensor([3.0]), torch.tensor([3]), False),
        (torch.zeros(2), torch.zeros(2, 1), False),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["a"], torch.zeros(1), False),
    ],
)
def test_what_is_alike(stored, found, expected):
    assert alike(stored, found) is expected


def test_what_is_random_is_found():
    assert varying(InFiles(is_random=True), "train") == ["image"]
    assert varying(InFiles(is_random=True), "val") == []
    assert varying(Digits(), "train") == []
    assert "image" not in probe(InFiles(is_random=True), "train", ["image"])
