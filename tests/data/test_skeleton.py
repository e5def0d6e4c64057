"""Bodies and poses, against SciPy's rotations and plain geometry."""

from itertools import pairwise

import pytest
import torch
from scipy.spatial.transform import Rotation

from mmdiffusion.data.skeleton import BONES, JOINTS, POSE_SIZES, bend, draw_body, joints, rotation
from mmdiffusion.seeding import SampleNoise

CLIPS, FRAMES = 5, 200


@pytest.fixture(scope="module")
def body():
    return draw_body(SampleNoise(0, range(CLIPS)))


def random_poses(scale=0.3):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(CLIPS, FRAMES, sum(POSE_SIZES), generator=generator)


def at(positions, joint):
    return positions[..., JOINTS.index(joint), :]


def length(vector):
    return vector.norm(dim=-1)


def test_bones_keep_their_length_in_any_pose(body):
    positions = joints(random_poses(), body)
    lengths = torch.stack([length(positions[..., a, :] - positions[..., b, :]) for a, b in BONES], dim=-1)
    assert (lengths - lengths[:, :1]).abs().max() < 1e-4  # a tenth of a millimetre, in float32


def test_bones_have_the_lengths_of_the_body(body):
    positions = joints(random_poses(), body)
    for upper, lower, bones in (
        ("shoulder", "elbow", body.upper_arm),
        ("elbow", "wrist", body.forearm),
        ("hip", "knee", body.thigh),
        ("knee", "ankle", body.shin),
    ):
        for side in ("left", "right"):
            found = length(at(positions, f"{side}_{upper}") - at(positions, f"{side}_{lower}"))
            assert (found - bones).abs().max() < 1e-4


def test_the_body_at_rest_stands_upright_with_its_left_on_the_left(body):
    rest = torch.zeros(CLIPS, 1, sum(POSE_SIZES))
    rest[..., 1] = rest[..., 4] = -0.9  # hands down
    positions = joints(rest, body)
    order = ["nose", "left_shoulder", "left_elbow", "left_wrist", "left_knee", "left_ankle"]
    heights = [at(positions, joint)[..., 1] for joint in order]
    assert all((a > b).all() for a, b in pairwise(heights))
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        left, right = at(positions, f"left_{joint}"), at(positions, f"right_{joint}")
        assert (left[..., 0] > 0.01).all()
        torch.testing.assert_close(right, left * torch.tensor([-1.0, 1, 1]))
    assert (at(positions, "nose")[..., 2] > at(positions, "left_ear")[..., 2] + 0.05).all()
    assert ((at(positions, "left_eye")[..., 1] / body.height > 0.85) & (heights[0] < body.height)).all()


def test_hands_and_feet_reach_their_places(body):
    pose = torch.zeros(CLIPS, 1, sum(POSE_SIZES))
    pose[..., :12] = torch.tensor([0.5, 0.2, 0.3, -0.2, 0.1, 0.7, 0.1, 0.0, 0.2, 0.0, 0.4, 0.3])
    positions = joints(pose, body)
    arm, leg = body.upper_arm + body.forearm, body.thigh + body.shin
    left = at(positions, "left_wrist") - at(positions, "left_shoulder")
    right = at(positions, "right_wrist") - at(positions, "right_shoulder")
    torch.testing.assert_close(left, arm[..., None] * torch.tensor([0.5, 0.2, 0.3]))
    torch.testing.assert_close(right, arm[..., None] * torch.tensor([0.2, 0.1, 0.7]))
    rest = joints(torch.zeros_like(pose), body)
    step = at(positions, "right_ankle") - at(rest, "right_ankle")
    torch.testing.assert_close(step, leg[..., None] * torch.tensor([0.0, 0.4, 0.3]))


def test_the_torso_goes_with_its_rotation(body):
    pose = random_poses()
    pose[..., 18] = 0  # no twist
    positions = joints(pose, body)
    shoulders = at(positions, "left_shoulder") - at(positions, "right_shoulder")
    expected = rotation(*pose[..., 15:18].unbind(-1))[..., 0] * 2 * body.shoulder[..., None]
    torch.testing.assert_close(shoulders, expected, rtol=1e-4, atol=1e-5)


def test_rotation_is_that_of_scipy():
    angles = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0))
    turn, lean, tilt = angles.unbind(-1)
    expected = Rotation.from_euler("YXZ", torch.stack([turn, lean, -tilt], -1)[0].numpy()).as_matrix()
    torch.testing.assert_close(rotation(turn, lean, tilt)[0].double(), torch.from_numpy(expected), rtol=0, atol=1e-6)


# Limbs -----------------------------------------------------------------------------------------------------------


def limb(target, upper=0.5, lower=0.4):
    """Middle and end of limbs from the origin; they point forward with the middle joint below."""
    target = target.reshape(1, -1, 3)
    shape = target.shape
    axis, normal = (torch.tensor(v).expand(shape) for v in ([0.0, 0, 1], [0.0, -1, 0]))
    lengths = torch.tensor([[upper]]), torch.tensor([[lower]])
    return bend(torch.zeros(shape), target, *lengths, axis, normal)


def test_bend_reaches_every_target_within_reach_with_both_bones():
    direction = torch.nn.functional.normalize(
        torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    target = direction * torch.linspace(0.15, 0.89, 500)[:, None]
    middle, end = limb(target)
    torch.testing.assert_close(end, target)
    torch.testing.assert_close(length(middle), torch.full((1, 500), 0.5))
    torch.testing.assert_close(length(end - middle), torch.full((1, 500), 0.4))


def test_bend_stretches_towards_a_target_out_of_reach():
    middle, end = limb(torch.tensor([0.0, 3.0, 4.0]))
    assert 0.89 < length(end).item() < 0.9
    torch.testing.assert_close(end / length(end)[..., None], torch.tensor([[[0.0, 0.6, 0.8]]]))
    torch.testing.assert_close(length(end - middle), torch.tensor([[0.4]]))


@pytest.mark.parametrize(
    ("direction", "elbow"),
    [
        ((0, 0, 1), (0, -1, 0)),  # forward: the elbow hangs
        ((1, 0, 0), (0, -1, 0)),  # to the side: likewise
        ((0, 1, 0), (0, 0, 1)),  # up: it points forward
        ((0, -1, 0), (0, 0, -1)),  # down: it points back
    ],
)
def test_the_middle_joint_turns_with_the_limb(direction, elbow):
    direction = torch.tensor(direction).float()
    middle, _ = limb(0.6 * direction)
    aside = middle[0, 0] - (middle[0, 0] @ direction) * direction
    torch.testing.assert_close(aside / aside.norm(), torch.tensor(elbow).float())


def test_the_middle_joint_never_jumps():
    """A circle of directions, through every one but the opposite of the axis."""
    angle = torch.linspace(-3, 3, 2000)
    middle, _ = limb(0.6 * torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], -1)[None])
    assert length(middle.diff(dim=1)).max() < 2 * 0.5 * 6 / 2000
