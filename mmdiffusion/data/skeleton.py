"""A body of 17 joints and how it takes a pose: torso and head are turned, limbs bend until hands and feet are in place.

Axes: x to the dancer's left, y up, z forward; metres.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.seeding import SampleNoise

JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""The keypoints of COCO, in its order."""

BONES = (
    *((0, 1), (0, 2), (1, 3), (2, 4)),
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
"""Pairs of joints whose distance never changes in a body."""

POSE_SIZES = (6, 6, 3, 4)
"""The 19 numbers of a pose are those of hands, feet, hips and torso.

hands: left, then right wrist, from its shoulder: outward, up, forward of the chest; in arm lengths.
feet: left, then right ankle, from where it stands at rest: outward, up, forward of the stage; in leg lengths.
hips: to the left, up, forward from their rest; in leg lengths.
torso: turn to the left, lean forward, tilt to the left, and twist of the chest to the left above the hips; radians.
"""

# Shares of the body height, rounded.
_SHARES = {"thigh": 0.235, "shin": 0.235, "upper_arm": 0.165, "forearm": 0.15, "trunk": 0.285}
_SHARES |= {"shoulder": 0.105, "hip": 0.06, "head": 0.13}
_ANKLE_HEIGHT = 0.045

_HEAD = ((0.0, 0.85, 0.5), (0.15, 1.02, 0.42), (-0.15, 1.02, 0.42), (0.34, 0.92, 0.0), (-0.34, 0.92, 0.0))
"""Nose, eyes and ears from the neck, in head heights."""
_HIP_HEIGHT = 0.95
"""Hips above the ankles at rest, in leg lengths: the knees are never quite straight."""
_STANCE = 1.5
"""Distance of an ankle from the middle at rest, in half widths of the hips."""
_ARM = ((0.6, 0.0, 0.8), (0.0, -1.0, 0.0))
_LEG = ((0.0, -1.0, 0.0), (0.3, 0.0, 0.954))
"""A direction of the limb (outward, up, forward) and where elbow or knee point then: unit vectors at right angles."""
_LONGEST_REACH = 0.995
"""A limb never quite stretches: its joint would snap."""


@dataclass(frozen=True)
class Body:
    """Lengths in metres, (b, 1) each; `shoulder` and `hip` are half the width there."""

    height: Tensor
    thigh: Tensor
    shin: Tensor
    upper_arm: Tensor
    forearm: Tensor
    trunk: Tensor
    shoulder: Tensor
    hip: Tensor
    head: Tensor


def draw_body(noise: SampleNoise) -> Body:
    """Bodies of 1.55 to 1.9 m with lengths within 5 % of the usual.

    Args:
        noise: Random numbers of these dancers.
    """
    height, *others = noise.uniform((1 + len(_SHARES),)).split(1, dim=1)
    height = 1.55 + 0.35 * height
    lengths = {
        name: share * height * (0.95 + 0.1 * u) for (name, share), u in zip(_SHARES.items(), others, strict=True)
    }
    return Body(height=height, **lengths)


def joints(pose: Float[Tensor, "b f p"], body: Body) -> Float[Tensor, "b f j 3"]:
    """Positions of the joints of bodies in these poses, above the middle of the stage, looking forward.

    A foot or hand that is out of reach goes as far towards its place as the limb allows.

    Args:
        pose: (b, f, 19) numbers, see `POSE_SIZES`.
        body: b bodies.

    Returns:
        (b, f, 17, 3) metres.
    """
    hands, feet, hips, torso = pose.split(POSE_SIZES, dim=-1)
    turn, lean, tilt, twist = torso.unbind(-1)
    pelvis = rotation(turn, 0.4 * lean, 0.3 * tilt)
    chest = rotation(turn + twist, lean, tilt)
    face = rotation(turn + 0.7 * twist, 0.5 * lean, 0.5 * tilt)

    leg, floor = body.thigh + body.shin, _ANKLE_HEIGHT * body.height
    zero = torch.zeros_like(leg)
    middle = leg[..., None] * hips + _vector(zero, floor + _HIP_HEIGHT * leg, zero)
    neck = middle + _turned(chest, zero, body.trunk, zero)
    head = [neck + _turned(face, *(share * body.head for share in place)) for place in _HEAD]
    arms = [_arm(body, neck, chest, hand, sign) for hand, sign in zip(hands.split(3, dim=-1), (1, -1), strict=True)]
    legs = [_leg(body, middle, pelvis, foot, sign) for foot, sign in zip(feet.split(3, dim=-1), (1, -1), strict=True)]
    pairs = [*zip(*arms, strict=True), *zip(*legs, strict=True)]
    return torch.stack([*head, *(joint for pair in pairs for joint in pair)], dim=-2)


def _arm(body: Body, neck: Tensor, chest: Tensor, hand: Tensor, sign: int) -> tuple[Tensor, ...]:
    """Shoulder, elbow and wrist, for sign 1 of the left arm."""
    zero, length = torch.zeros_like(body.shoulder), body.upper_arm + body.forearm
    outward, up, forward = (length * share for share in hand.unbind(-1))
    shoulder = neck + _turned(chest, sign * body.shoulder, zero, zero)
    target = shoulder + _turned(chest, sign * outward, up, forward)
    return shoulder, *bend(shoulder, target, body.upper_arm, body.forearm, *_sided(chest, _ARM, sign))


def _leg(body: Body, middle: Tensor, pelvis: Tensor, foot: Tensor, sign: int) -> tuple[Tensor, ...]:
    """Hip, knee and ankle, for sign 1 of the left leg."""
    zero, length = torch.zeros_like(body.hip), body.thigh + body.shin
    outward, up, forward = (length * share for share in foot.unbind(-1))
    hip = middle + _turned(pelvis, sign * body.hip, zero, zero)
    target = _vector(sign * (_STANCE * body.hip + outward), _ANKLE_HEIGHT * body.height + up, forward)
    return hip, *bend(hip, target, body.thigh, body.shin, *_sided(pelvis, _LEG, sign))


def bend(
    root: Float[Tensor, "b f 3"],
    target: Float[Tensor, "b f 3"],
    upper: Float[Tensor, "b 1"],
    lower: Float[Tensor, "b 1"],
    axis: Float[Tensor, "b f 3"],
    normal: Float[Tensor, "b f 3"],
) -> tuple[Float[Tensor, "b f 3"], Float[Tensor, "b f 3"]]:
    """Middle and end of a limb of two bones that starts at the root and reaches for the target.

    The law of cosines gives the bend. The middle joint points along `normal` when the limb points along `axis`; for
    another direction, `normal` goes with the smallest rotation that turns `axis` there, which is smooth for every
    direction but the opposite of `axis`. Derived.

    Args:
        root: (b, f, 3) shoulder or hip.
        target: (b, f, 3) where wrist or ankle should be.
        upper: (b, 1) length of the first bone.
        lower: (b, 1) length of the second bone.
        axis: (b, f, 3) unit vector.
        normal: (b, f, 3) unit vector at right angles to `axis`.
    """
    longest, shortest = _LONGEST_REACH * (upper + lower), (upper - lower).abs() / _LONGEST_REACH
    distance = (target - root).norm(dim=-1)
    direction = (target - root) / distance.clamp(min=1e-6)[..., None]
    reach = distance.clamp(shortest, longest)
    along = (reach**2 + upper**2 - lower**2) / (2 * reach)
    aside = (upper**2 - along**2).clamp(min=0).sqrt()
    overlap = (direction * normal).sum(-1, keepdim=True) / (1 + (direction * axis).sum(-1, keepdim=True)).clamp(
        min=1e-6
    )
    carried = normal - overlap * (axis + direction)
    return root + along[..., None] * direction + aside[..., None] * carried, root + reach[..., None] * direction


def rotation(
    turn: Float[Tensor, "b f"], lean: Float[Tensor, "b f"], tilt: Float[Tensor, "b f"]
) -> Float[Tensor, "b f 3 3"]:
    """Rotation that tilts to the left, then leans forward, then turns to the left.

    Args:
        turn: (b, f) radians about the vertical.
        lean: (b, f) radians about the axis to the left.
        tilt: (b, f) radians about the axis forward.
    """
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

    (a, b), (c, d), (e, f) = ((angle.cos(), angle.sin()) for angle in (turn, lean, tilt))
    turning = matrix(a, zero, b, zero, one, zero, -b, zero, a)
    leaning = matrix(one, zero, zero, zero, c, -d, zero, d, c)
    tilting = matrix(e, f, zero, -f, e, zero, zero, zero, one)
    return turning @ leaning @ tilting


def _turned(frame: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The vector with these components, (b, 1) or (b, f) each, in a rotated frame (b, f, 3, 3)."""
    return (frame @ _vector(x, y, z)[..., None])[..., 0]


def _sided(frame: Tensor, directions: tuple[tuple[float, float, float], ...], sign: int) -> list[Tensor]:
    """Directions given as outward, up, forward, in a rotated frame (b, f, 3, 3)."""
    return [frame @ torch.tensor([sign * outward, up, forward]) for outward, up, forward in directions]


def _vector(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Components to vectors along a last axis."""
    return torch.stack(torch.broadcast_tensors(x, y, z), dim=-1)
