"""Published segments of AIST++ and TikTok: lists of other machines, folders as they are, what is damaged."""

import numpy as np
import pytest
import torch

from mmdiffusion.data import AISTSegments, TikTok
from mmdiffusion.data.clips import read_numbers
from mmdiffusion.data.files import DamagedError
from mmdiffusion.types import FeatureSpec, MotionFeatureSpec, MusicSpec
from tests.data.dance_files import numbers, write_array, write_segments, write_tone

pytestmark = pytest.mark.filterwarnings("ignore:.*published are:UserWarning")

AIST_STEMS = {
    "train": ["gPO_sBM_c01_d11_mPO1_ch02_seg1", "gLH_sBM_c01_d17_mLH4_ch02_seg2", "gBR_sFM_c01_d04_mBR0_ch01_seg10"],
    "val": ["gJB_sBM_c01_d08_mJB5_ch01_seg1"],
    "test": ["gKR_sBM_c01_d28_mKR2_ch02_seg4", "gHO_sBM_c01_d20_mHO5_ch02_seg1"],
}
TIKTOK_STEMS = {"train": ["000001_1_2_seg1", "000001_1_2_seg2"], "test": ["000007_7_188_seg3"]}
SETTINGS = {"sample_rate": 4000, "num_workers": 0, "batch_size": 2}


@pytest.fixture
def aist(tmp_path):
    for split, stems in AIST_STEMS.items():
        write_segments(tmp_path / "aistplus", [f"{split}/{stem}" for stem in stems])
        lines = [f"/data/someone/aistplus/audio_s2/{split}/{stem}.wav" for stem in stems]
        (tmp_path / f"aist_audio_{split}_segment.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def tiktok(tmp_path):
    for split, stems in TIKTOK_STEMS.items():
        write_segments(tmp_path / "tiktok", stems, motion_shape=(4500,))
        lines = [f"./tiktok/audio_s2/{stem}.wav\n" for stem in stems]
        (tmp_path / f"tiktok_audio_{split}_segment.txt").write_text("".join(lines))
    return tmp_path


def test_a_batch_holds_motion_music_and_the_genre_of_the_name(aist):
    data = AISTSegments(str(aist), **SETTINGS)
    batch = data.rows("test", [0, 1])
    assert data.spec["motion_features"] == MotionFeatureSpec(120, 219, 60)
    assert data.spec["music"] == MusicSpec(8000, 4000)
    assert {name: tuple(values.shape) for name, values in batch.items()} == {
        "index": (2,),
        "motion_features": (2, 120, 219),
        "music": (2, 8000),
        "label": (2,),
    }
    assert batch["label"].tolist() == [5, 7], "house and krump; without lists, files come in alphabetical order"
    torch.testing.assert_close(batch["motion_features"][1], torch.from_numpy(numbers(120, 219, seed=0)).float())


def test_lists_of_another_machine_give_the_order(aist):
    data = AISTSegments(str(aist), lists=str(aist), video=True, **SETTINGS)
    assert data.rows("train", [0, 1, 2])["label"].tolist() == [1, 4, 0]
    assert data.spec["video"] == FeatureSpec((2048,))
    video = data.rows("test", [1])["video"]
    torch.testing.assert_close(video, torch.from_numpy(numbers(1, 2048, seed=1)).float())


def test_six_seconds_and_sounds_that_end_earlier(tmp_path):
    for split in ("train", "val", "test"):
        write_segments(tmp_path, [f"{split}/{AIST_STEMS['val'][0]}"], seconds=6, motion_shape=(360, 219))
    write_tone(tmp_path / "audio_s6" / "val" / f"{AIST_STEMS['val'][0]}.wav", 2.5, 4000)
    data = AISTSegments(str(tmp_path), seconds=6, **SETTINGS)
    music = data.rows("val", [0])["music"]
    assert music.shape == (1, 24000)
    assert music[0, 9990:10000].any()
    assert not music[0, 10000:].any()


def test_tiktok_has_no_genre_and_validates_on_the_test_list(tiktok):
    data = TikTok(str(tiktok), lists=str(tiktok), **SETTINGS)
    assert data.spec == {"motion_features": MotionFeatureSpec(60, 75, 30), "music": MusicSpec(8000, 4000)}
    batch = data.rows("train", [1])
    assert "label" not in batch
    truth = torch.from_numpy(numbers(4500, seed=1)).float().reshape(1, 60, 75)
    torch.testing.assert_close(batch["motion_features"], truth)
    assert torch.equal(data.rows("val", [0])["music"], data.rows("test", [0])["music"])


def test_loudness_is_drawn_in_training_only(aist):
    data = AISTSegments(str(aist), **SETTINGS)
    peaks = [float(data.split("train").__getitems__([draw])["music"].abs().max()) for draw in (0, 3, 6)]
    assert len(set(peaks)) == 3
    assert max(peaks) <= 0.95
    assert float(data.rows("val", [0])["music"].abs().max()) == pytest.approx(0.95)


def test_a_subset_is_used_and_said(aist):
    (aist / "aistplus" / "motion_s2" / "train" / f"{AIST_STEMS['train'][1]}.npy").unlink()
    data = AISTSegments(str(aist), lists=str(aist), **SETTINGS)
    with pytest.warns(UserWarning, match=r"AISTSegments train: 2 segments.* of 3 named, published are 6632"):
        assert data.num_rows("train") == 2


@pytest.mark.parametrize(("seconds", "numbers_published"), [(2, (6632, 86, 86)), (6, (2581, 36, 36))])
def test_published_numbers(seconds, numbers_published):
    data = AISTSegments("anywhere", seconds=seconds)
    assert tuple(data.published(split) for split in ("train", "val", "test")) == numbers_published
    assert data.list_name("val") == f"aist_audio_val_segment{'_s6' if seconds == 6 else ''}.txt"


# What is missing or wrong --------------------------------------------------------------------------------------


def test_missing_folders_and_lists_are_named_with_where_they_are_offered(aist):
    with pytest.raises(
        ValueError, match=r"found no audio_s6 in it.*segments of 6 seconds, from https://github.com/L-Ye"
    ):
        AISTSegments(str(aist), seconds=6).prepare_data()
    with pytest.raises(ValueError, match=r"lists is .*: it has no aist_audio_train_segment\.txt"):
        AISTSegments(str(aist), lists=str(aist / "aistplus")).prepare_data()
    (aist / "aistplus" / "audio_s2" / "val").rename(aist / "elsewhere")
    with pytest.raises(ValueError, match=r"audio_s2.val has no \.wav: expected the val split"):
        AISTSegments(str(aist), **SETTINGS).prepare_data()


def test_no_segment_is_whole(aist):
    (aist / "aistplus" / "video_s2").rename(aist / "elsewhere")
    with pytest.raises(ValueError, match=r"video_s2.*seg1\.npy is missing, as are files of all 1 segments"):
        AISTSegments(str(aist), video=True, **SETTINGS).split("val")


@pytest.mark.parametrize("line", ["/data/x/audio_s6/test/a.wav", "audio_s2/../../secret.wav", "a.wav"])
def test_a_line_that_leads_elsewhere_is_refused(aist, line):
    (aist / "aist_audio_val_segment.txt").write_text(line)
    with pytest.raises(ValueError, match=r"has the line .*: expected a file in audio_s2"):
        AISTSegments(str(aist), lists=str(aist), **SETTINGS).split("val")


def test_a_name_without_a_genre_is_said(aist):
    write_segments(aist / "aistplus", ["val/unnamed_seg1"])
    with pytest.raises(ValueError, match=r"'unnamed' is no name of an AIST\+\+ sequence"):
        AISTSegments(str(aist), **SETTINGS).split("val")


def test_seconds_that_are_not_published():
    with pytest.raises(ValueError, match="seconds is 4: expected 2 or 6"):
        AISTSegments("anywhere", seconds=4)


def test_a_motion_of_another_shape_is_damaged(aist):
    write_array(aist / "aistplus" / "motion_s2" / "val" / f"{AIST_STEMS['val'][0]}.npy", numbers(119, 219))
    with pytest.raises(ValueError, match=r"1 of 1 samples are damaged.*shape \(119, 219\): expected \(120, 219\)"):
        AISTSegments(str(aist), **SETTINGS).rows("val", [0])


def objects(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def cut_off(path):
    np.save(path, np.zeros((5, 2)))
    path.write_bytes(path.read_bytes()[:-8])


def only_a_header(path):
    """A file of some bytes that asks for terabytes."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (objects, "[Oo]bject"),
        (cut_off, "a.npy"),
        (only_a_header, "a.npy"),
        (lambda path: path.write_bytes(b"text"), "a.npy"),
        (lambda path: None, "No such file"),
        (lambda path: np.save(path, np.full((5, 2), np.nan)), "10 numbers that are not finite"),
        (lambda path: np.save(path, np.array([["a", "b"]] * 5)), "could not convert"),
    ],
    ids=["objects", "cut off", "only a header", "text", "none", "not finite", "words"],
)
def test_numbers_that_cannot_be_read_are_damaged(tmp_path, write, message):
    write(tmp_path / "a.npy")
    with pytest.raises(DamagedError, match=message):
        read_numbers(tmp_path / "a.npy", (5, 2))
