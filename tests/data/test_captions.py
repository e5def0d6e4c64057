"""Captions: mended, shortened, and found by their picture."""

import pytest
import torch

from mmdiffusion.data.captions import Captions, as_text, lines, mend, shorten
from mmdiffusion.data.strings import Strings


@pytest.mark.parametrize(
    ("stored", "mended"),
    [
        ("  a red\tbird  sits .\r\n", "a red bird sits ."),
        ("this\ufffd\ufffdbird\ufffd\ufffdhas\ufffd\ufffda beak", "this bird has a beak"),
        ("half \ud83d of a sign", "half of a sign"),
        ("caf\u00e9 \u9ce5", "caf\u00e9 \u9ce5"),
        ("\ufffd \n", ""),
    ],
)
def test_a_caption_is_one_line_with_single_blanks(stored, mended):
    assert mend(stored) == mended


@pytest.mark.parametrize(
    ("max_words", "kept"), [(1, "a"), (3, "a red bird"), (4, "a red bird sits"), (9, "a red bird sits")]
)
def test_the_first_words_are_kept(max_words, kept):
    assert shorten("a red bird sits", max_words) == kept


def test_a_line_is_a_caption_and_an_empty_one_is_none():
    assert list(lines("one\r\n\n two three\n\x0b\nlast")) == ["one", "two three", "last"]


def test_text_may_have_a_mark_of_its_byte_order():
    assert as_text("\ufeffbird".encode()) == "bird"


def test_what_is_not_utf_8_is_named():
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 0xe9 at 3\); convert it, such as with iconv"):
        as_text("caf\u00e9".encode("latin1"))


def test_captions_are_found_by_their_picture_in_their_own_order():
    texts = Strings.of(["b0", "nobody's", "a0", "b1", "d0", "a1", "b2"])
    captions = Captions(texts, torch.tensor([1, -1, 0, 1, 3, 0, 1]), 4)
    assert [captions.of(picture) for picture in range(4)] == [["a0", "a1"], ["b0", "b1", "b2"], [], ["d0"]]
    assert captions.counts.tolist() == [2, 3, 0, 1]
