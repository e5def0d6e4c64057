"""Motion from pickles: layout, units, what is damaged."""

import numpy as np
import pytest
import torch

from mmdiffusion.data.aist_motion import KeypointDance, SMPLDance, open_dance
from mmdiffusion.data.files import DamagedError
from tests.data.dance_files import numbers, write_pickle

GOOD = {"smpl_poses": np.zeros((4, 72), "f4"), "smpl_trans": np.ones((4, 3), "f4"), "smpl_scaling": np.array([2.0])}


def smpl(path, **changes):
    write_pickle(path / "a.pkl", GOOD | changes)
    return whole(SMPLDance(path / "a.pkl"))


def whole(dance):
    return dance.window(0, dance.num_frames)


def test_root_in_metres_then_matrices_of_the_joints_row_by_row(tmp_path):
    poses, root = np.zeros((4, 72), "f4"), numbers(4, 3)
    poses[2, 3 * 5 : 3 * 6] = [0, 0, np.pi / 2]
    made = smpl(tmp_path, smpl_poses=poses, smpl_trans=root, smpl_scaling=np.array([93.75]))
    assert made.shape == (4, 219)
    torch.testing.assert_close(made[:, :3], torch.from_numpy(root / 93.75).float())
    matrices = made[:, 3:].reshape(4, 24, 3, 3)
    quarter_turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(matrices[2, 5], quarter_turn, atol=1e-6, rtol=0)
    assert torch.equal(matrices[0, 5], torch.eye(3))


def test_joints_of_a_pose_may_have_an_axis_of_their_own_and_the_scale_may_be_a_number(tmp_path):
    poses = numbers(4, 24, 3)
    made = smpl(tmp_path, smpl_poses=poses, smpl_scaling=2.0)
    write_pickle(tmp_path / "flat.pkl", GOOD | {"smpl_poses": poses.reshape(4, 72)})
    assert torch.equal(made, whole(SMPLDance(tmp_path / "flat.pkl")))


def test_keypoints_are_the_smoothed_ones_in_metres(tmp_path):
    broken, joints = np.full((4, 17, 3), np.nan), numbers(4, 17, 3)
    write_pickle(tmp_path / "a.pkl", {"keypoints3d": broken, "keypoints3d_optim": joints})
    made = whole(KeypointDance(tmp_path / "a.pkl"))
    torch.testing.assert_close(made, torch.from_numpy(joints.reshape(4, 51) / 100).float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smpl_poses": np.zeros((4, 71))}, r"smpl_poses \(4, 71\).*expected \(f, 72\)"),
        ({"smpl_trans": np.zeros((5, 3))}, r"smpl_trans \(5, 3\)"),
        ({"smpl_scaling": np.array([0.0])}, "a number above 0"),
        ({"smpl_trans": np.full((4, 3), np.nan)}, "smpl_trans has 12 numbers that are not finite"),
        ({"smpl_poses": "none"}, "could not convert"),
    ],
)
def test_what_is_no_body_is_damaged(tmp_path, changes, message):
    with pytest.raises(DamagedError, match=rf"a\.pkl: .*{message}"):
        smpl(tmp_path, **changes)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"keypoints3d": np.zeros((4, 17, 3))}, "it has no keypoints3d_optim"),
        ([1, 2], "it has no keypoints3d_optim"),
        ({"keypoints3d_optim": np.zeros((4, 16, 3))}, r"shape \(4, 16, 3\): expected \(f, 17, 3\)"),
        ({"keypoints3d_optim": np.zeros((0, 17, 3))}, "expected at least one frame"),
        ({"keypoints3d_optim": np.full((1, 17, 3), np.inf)}, "51 numbers that are not finite"),
    ],
)
def test_what_are_no_joints_is_damaged(tmp_path, value, message):
    write_pickle(tmp_path / "a.pkl", value)
    with pytest.raises(DamagedError, match=message):
        KeypointDance(tmp_path / "a.pkl")


class Dangerous:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_would_run_code_is_damaged(tmp_path, capsys):
    write_pickle(tmp_path / "a.pkl", {"keypoints3d_optim": Dangerous()})
    with pytest.raises(DamagedError, match=r"names builtins\.print"):
        KeypointDance(tmp_path / "a.pkl")
    assert capsys.readouterr().out == ""


def test_a_missing_and_a_huge_file_are_damaged(tmp_path, monkeypatch):
    with pytest.raises(DamagedError, match="No such file"):
        KeypointDance(tmp_path / "none.pkl")
    monkeypatch.setattr("mmdiffusion.data.aist_motion.LARGEST_PICKLE", 100)
    with pytest.raises(DamagedError, match="expected at most 100"):
        smpl(tmp_path)


def test_few_sequences_stay_in_memory(tmp_path):
    for i in range(20):
        write_pickle(tmp_path / f"{i}.pkl", GOOD)
        open_dance(SMPLDance, tmp_path / f"{i}.pkl")
    assert open_dance.cache_info().currsize <= 8
    last = tmp_path / "19.pkl"
    assert open_dance(SMPLDance, last) is open_dance(SMPLDance, last)


def test_a_window_has_memory_of_its_own(tmp_path):
    joints = numbers(6, 17, 3)
    write_pickle(tmp_path / "a.pkl", {"keypoints3d_optim": joints})
    dance = KeypointDance(tmp_path / "a.pkl")
    window = dance.window(2, 3)
    torch.testing.assert_close(window, torch.from_numpy(joints[2:5].reshape(3, 51) / 100).float())
    window.zero_()
    assert dance.window(2, 3).all()
