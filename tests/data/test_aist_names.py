"""Names of AIST++ sequences: what they tell, and that the published numbers of segments follow from them."""

import pytest

from mmdiffusion.data.aist_archive import windows
from mmdiffusion.data.aist_names import parse_name

HELD_OUT = ("mBR0", "mPO1", "mLO2", "mMH3", "mLH4", "mHO5", "mWA0", "mKR2", "mJS3", "mJB5")
"""Pieces of the cross-modal test split; two dancers each, basic moves."""
TRAIN = {
    ("BM", "LO"): (112, 128, 112, 112, 128, 128),
    ("BM", "HO"): (16, 16, 16, 16, 16, 0),
    ("FM", "LO"): (24, 28, 24, 26, 29, 31),
    ("FM", "HO"): (3, 3, 4, 5, 3, 0),
}
"""Names in the published training list: by situation, by house or another genre, and by number of the piece."""


def test_a_name_tells_genre_dancer_piece_and_tempo():
    name = parse_name("gJS_sFM_cAll_d03_mJS2_ch07")
    assert (name.genre, name.situation, name.dancer, name.music, name.choreography) == (8, "FM", 3, "mJS2", 7)
    assert name.tempo == 100
    assert name.num_frames == 2304, "64 beats at 100 a minute are 38.4 s"
    assert name.seen_by(1) == "gJS_sFM_c01_d03_mJS2_ch07"


@pytest.mark.parametrize(
    ("music", "tempo", "frames"), [("BR0", 80, 720), ("BR2", 100, 576), ("BR5", 130, 443), ("HO0", 110, 523)]
)
def test_tempo_and_length_follow_the_piece(music, tempo, frames):
    name = parse_name(f"g{music[:2]}_sBM_cAll_d04_m{music}_ch01")
    assert (name.tempo, name.num_frames) == (tempo, frames)


@pytest.mark.parametrize(
    "text", ["gBR_sBM_cAll_d04_mBR0", "gXX_sBM_cAll_d04_mXX0_ch01", "gBR_sBM_cAll_d04_mBR6_ch01", "", "../etc"]
)
def test_what_is_no_name_is_said(text):
    with pytest.raises(ValueError, match="is no name of an AIST\\+\\+ sequence: expected such as gBR_sBM"):
        parse_name(text)


def count(names, seconds):
    return sum(len(windows(parse_name(name).num_frames, seconds * 60, seconds * 60)) for name in names)


def test_published_numbers_of_segments_follow_from_the_published_lists():
    test = [f"g{piece[1:3]}_sBM_cAll_d{dancer}_{piece}_ch02" for piece in HELD_OUT for dancer in ("01", "02")]
    train = [
        f"g{genre}_s{situation}_cAll_d01_m{genre}{piece}_ch01"
        for (situation, genre), counts in TRAIN.items()
        for piece, number in enumerate(counts)
        for _ in range(number)
    ]
    assert (len(train), len(test)) == (980, 20)
    assert (count(train, 2), count(test, 2)) == (6632, 86)
    assert (count(train, 6), count(test, 6)) == (2581, 36)


@pytest.mark.parametrize(
    ("frames", "length", "stride", "starts"),
    [
        (720, 120, 120, [0, 120, 240, 360, 480, 600]),
        (443, 120, 120, [0, 120, 240]),
        (640, 360, 360, [0, 280]),
        (479, 360, 360, [0]),
        (480, 360, 360, [0, 120]),
        (300, 120, 60, [0, 60, 120, 180]),
        (100, 120, 120, []),
        (120, 120, 120, [0]),
    ],
)
def test_windows_fit_and_a_long_rest_has_one_of_its_own(frames, length, stride, starts):
    assert windows(frames, length, stride) == starts
