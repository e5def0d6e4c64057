"""AIST++ from the archive: what a batch holds, what is missing and where it is offered, what is damaged."""

import time

import numpy as np
import pytest
import torch

from mmdiffusion.data import AIST
from mmdiffusion.data.aist_motion import KeypointDance, SMPLDance
from mmdiffusion.data.base import whole_batch
from mmdiffusion.types import FeatureSpec, LabelSpec, MotionFeatureSpec, MotionSpec, MusicSpec
from tests.data.dance_files import (
    TEST,
    TRAIN,
    numbers,
    write_archive,
    write_array,
    write_dance,
    write_lists,
    write_pickle,
)

SUBSET = "ignore:AIST..:UserWarning"
pytestmark = pytest.mark.filterwarnings(SUBSET)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("aist"))


def build(root, **settings):
    return AIST(**{"root": str(root), "sample_rate": 4000, "num_workers": 0, "batch_size": 2} | settings)


@pytest.fixture
def own(tmp_path):
    """An archive that a test may break."""
    return write_archive(tmp_path / "aist")


def test_a_batch_holds_what_the_spec_says(archive):
    data = build(archive)
    batch, spec = data.rows("test", [0, 2]), data.spec
    assert spec["motion_features"] == MotionFeatureSpec(120, 219, 60)
    assert isinstance(spec["label"], LabelSpec)
    assert spec["label"].names[5] == "house"
    assert spec["music"] == MusicSpec(8000, 4000)
    assert {name: tuple(values.shape) for name, values in batch.items()} == {
        "index": (2,),
        "motion_features": (2, 120, 219),
        "label": (2,),
        "music": (2, 8000),
    }
    assert batch["label"].tolist() == [5, 5]
    assert all(values.dtype == torch.float32 for name, values in batch.items() if name not in ("index", "label"))


def test_joints_are_read_as_positions(archive):
    data = build(archive, motion="keypoints")
    batch = data.rows("test", [0, 2])
    assert data.spec["motion"] == MotionSpec(120, 17, 60)
    assert "motion_features" not in {*data.spec, *batch}
    whole = KeypointDance(archive / "keypoints3d" / f"{TEST[0]}.pkl").window(0, 426)
    assert torch.equal(batch["motion"], torch.stack([whole[:120], whole[240:360]]))


def test_windows_are_those_of_the_dance_and_its_music(archive):
    """The music is a sine, so where a window of it begins is known."""
    batch = build(archive, gain=None).rows("test", [0, 1, 2])
    whole = SMPLDance(archive / "motions" / f"{TEST[0]}.pkl").window(0, 426)
    assert torch.equal(batch["motion_features"], whole[:360].unflatten(0, (3, 120)))
    times = (torch.arange(3)[:, None] * 8000 + torch.arange(8000)).double() / 4000
    truth = 0.25 * torch.sin(2 * torch.pi * 110 * times).float()
    torch.testing.assert_close(batch["music"], truth, atol=1e-3, rtol=0)


def test_number_of_windows_follows_length_and_stride(archive):
    """426 frames of a dance at 135 beats a minute, 443 at 130, 16 s at 480."""
    assert build(archive).num_rows("test") == 3
    assert build(archive, stride=1.0).num_rows("test") == 6
    assert build(archive, seconds=6.0).num_rows("test") == 1
    assert build(archive, seconds=4.0).num_rows("test") == 2, "2 s and more are left, so one ends with the dance"


def test_ignored_dances_are_left_out(archive):
    kept, dropped = build(archive, drop_ignored=False), build(archive)
    assert [name.text for name in kept.split("train").names] == list(TRAIN)
    assert [name.text for name in dropped.split("train").names] == list(TRAIN[:2])


def test_loudness_is_drawn_in_training_only(archive):
    data = build(archive)
    size = data.num_rows("train")
    first, later = (data.split("train").__getitems__([draw])["music"].abs().max() for draw in (0, size))
    assert first != later
    assert {round(float(data.rows("val", [row])["music"].abs().max()), 4) for row in range(3)} == {0.95}


def test_doubled_folders_and_music_elsewhere(tmp_path):
    root = write_archive(tmp_path / "download" / "aist_plusplus_final")
    (root / "music").rename(tmp_path / "songs")
    data = build(tmp_path, music=str(tmp_path / "songs"))
    assert data.num_rows("val") == 3


def test_video_features_are_those_of_the_window(own):
    for number in (1, 2, 3):
        write_array(own / "i3d" / "test" / f"gHO_sBM_c01_d20_mHO5_ch02_seg{number}.npy", np.full((1, 2048), number))
    data = build(own, video_features=str(own / "i3d"))
    assert data.spec["video"] == FeatureSpec((2048,))
    assert data.rows("test", [2, 0])["video"][:, 0].tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"val.gHO_sBM_c01_d20_mHO5_ch01_seg1\.npy: .*No such file"):
        data.rows("val", [0])


def test_workers_read_the_same(archive):
    alone, helped = (list(build(archive, num_workers=n, eval_batch_size=2).test_dataloader()) for n in (0, 2))
    for one, two in zip(alone, helped, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


# What is missing -----------------------------------------------------------------------------------------------


def test_missing_music_is_named_with_where_it_is_offered(own):
    (own / "music" / "mHO4.wav").unlink()
    with pytest.raises(
        ValueError,
        match=r"music lacks mHO4\.wav, of 1 files.*put them there, or name.*hold no music.*aistdancedb.*download",
    ):
        build(own).prepare_data()
    with pytest.raises(ValueError, match=r"nowhere lacks mHO4\.wav"):
        build(own, music=str(own / "nowhere")).split("train")


def test_videos_need_ffmpeg_and_then_their_files(own, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="there is no command ffmpeg"):
        build(own, videos=str(own)).split("train")
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(ValueError, match=r"lacks gHO_sBM_c01_d19_mHO4_ch01\.mp4, gHO_sBM_c01"):
        build(own, videos=str(own)).split("train")


def test_a_subset_is_used_and_said(own):
    (own / "motions" / f"{TRAIN[0]}.pkl").unlink()
    with pytest.warns(UserWarning, match=r"AIST\+\+ train: 1 of 2 sequences are in .*motions;"):
        build(own).split("train")
    with pytest.warns(UserWarning, match="lists 1 sequences, published are 20"):
        build(own).split("test")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("motions", r"motions is missing: expected a pickle for each sequence, from https://google"),
        ("splits/crossmodal_val.txt", r"crossmodal_val\.txt is missing: expected the list of names"),
        (
            "splits",
            r"found no splits in it, nor up to two folders deeper; expected the annotations of AIST\+\+, from https",
        ),
        ("ignore_list.txt", r"ignore_list\.txt is missing"),
    ],
)
def test_what_is_missing_is_named_before_training(own, lost, message):
    (own / lost).rename(own / "elsewhere")
    with pytest.raises(ValueError, match=message):
        build(own).prepare_data()


def test_no_sequence_of_a_split_and_an_empty_list(own):
    write_lists(own, train=("gBR_sBM_cAll_d04_mBR0_ch09",))
    with pytest.raises(ValueError, match=r"motions has none of the 1 sequences.*gBR_sBM_cAll_d04_mBR0_ch09\.pkl"):
        build(own).split("train")
    write_lists(own, train=())
    with pytest.raises(ValueError, match=r"crossmodal_train\.txt has no name left"):
        build(own).split("train")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"root is .*none, which is missing: expected a folder with the annotations"):
        build(tmp_path / "none").split("train")


# What is damaged -----------------------------------------------------------------------------------------------


def test_a_file_that_is_a_little_shorter_moves_its_last_window(own):
    """16 beats at 130 a minute are 443 frames; two windows of 221 end at 442."""
    name = "gHO_sBM_cAll_d20_mBR5_ch02"
    write_dance(own, name, num_frames=440)
    write_lists(own, test=(name,))
    whole = SMPLDance(own / "motions" / f"{name}.pkl").window(0, 440)
    batch = build(own, seconds=221 / 60, gain=None).rows("test", [0, 1])
    assert torch.equal(batch["motion_features"], torch.stack([whole[:221], whole[219:]]))
    start = (219 / 60 + torch.arange(100) / 4000).double()
    truth = 0.25 * torch.sin(2 * torch.pi * 110 * start).float()
    torch.testing.assert_close(batch["music"][1, :100], truth, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=r"it has 440 frames: expected 443, by tempo and beats"):
        build(own, seconds=442 / 60).rows("test", [0])


def test_a_file_that_lacks_a_part_is_damaged(own):
    write_dance(own, TEST[0], num_frames=300)
    with pytest.raises(ValueError, match=r"3 of 3|1 of 3 samples are damaged.*it has 300 frames: expected 426"):
        build(own).rows("test", [0])


def test_damage_is_counted_up_to_the_limit(own):
    write_pickle(own / "motions" / f"{TRAIN[0]}.pkl", {"smpl_poses": numbers(3, 72)})
    with pytest.raises(ValueError, match=r"1 of 6 samples are damaged.*it has no smpl_trans"):
        build(own).rows("train", [0])
    data = build(own, max_bad_fraction=0.5)
    assert data.rows("train", range(6))["index"].tolist() == [3, 3, 3, 3, 4, 5]
    assert len(data.split("train").damaged) == 3


# Settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0.001}, "seconds is 0.001: expected a whole number of frames, 60 a second"),
        ({"seconds": 1.01}, "seconds is 1.01"),
        ({"stride": 0.0}, "stride is 0.0: expected a whole number of frames"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"gain": (0.0, 1.0)}, r"gain is \[0.0, 1.0\]: expected a range above 0"),
        ({"music": "a", "videos": "b"}, "music is a, videos is b: expected one of them"),
        ({"video_features": "a", "stride": 1.0}, "stride is 1.0: expected None"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build("anywhere", **settings)


def test_clips_longer_than_every_dance(archive):
    with pytest.raises(ValueError, match=r"seconds is 30\.0: expected less, no dance of the test split is as long"):
        build(archive, seconds=30.0).split("test")


def test_the_index_of_a_whole_archive_takes_moments(tmp_path):
    names = [f"gHO_sBM_cAll_d{i // 100:02}_mHO{i % 6}_ch{i % 100:02}" for i in range(1408)]
    write_lists(tmp_path, train=names, ignored=())
    for folder in ("motions", "music"):
        (tmp_path / folder).mkdir()
    for name in names:
        (tmp_path / "motions" / f"{name}.pkl").touch()
    for i in range(6):
        (tmp_path / "music" / f"mHO{i}.wav").touch()
    data, before = build(tmp_path, seconds=2.0, stride=0.5), time.perf_counter()
    assert data.num_rows("train") > 15000
    assert time.perf_counter() - before < 5


def test_batches_need_no_collating(archive):
    loader = build(archive).train_dataloader()
    assert loader.collate_fn is whole_batch
    assert next(iter(loader))["music"].shape == (2, 8000)
