"""A dance as lines that move."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.skeleton import BONES, JOINTS

WIDTH, HEIGHT, MARGIN = 220, 260, 14
"""Of the picture."""
TURN = 0.35
"""Radians that the dancer is turned away, which shows depth."""
FRAMES_PER_SECOND = 30
"""Of the moving picture, at most."""
HEAD, NECK, FACE = len(JOINTS), len(JOINTS) + 1, 5
"""Numbers of two points that are added to the joints; and of the joints of the face, which the head stands for."""
LINES = [
    *(bone for bone in BONES if min(bone) >= FACE),
    (JOINTS.index("left_shoulder"), JOINTS.index("left_hip")),
    (JOINTS.index("right_shoulder"), JOINTS.index("right_hip")),
    (NECK, HEAD),
]
HEAD_SIZE = 0.11
"""Radius of a head in metres."""


@dataclass(frozen=True)
class Skeleton:
    """A dance as it is drawn.

    Args:
        frames: Places of all points, across and down in pixels: one list of numbers a frame.
        fps: Frames a second.
        lines: Numbers of the points that a line joins, and the side of the body: "left", "right" or "middle".
        head: Radius of the head in pixels.
        beats: Seconds at which the dancer is slowest.
    """

    frames: list[list[float]]
    fps: float
    lines: list[tuple[int, int, str]]
    head: float
    beats: list[float]

    def at(self, seconds: float) -> list[float]:
        """The frame of a time."""
        return self.frames[min(round(seconds * self.fps), len(self.frames) - 1)]

    def outline(self, seconds: float) -> str:
        """The lines of a frame, as the data of an SVG path."""
        frame = self.at(seconds)
        ends = [(frame[2 * a], frame[2 * a + 1], frame[2 * b], frame[2 * b + 1]) for a, b, _ in self.lines]
        return "".join(f"M{ax:g} {ay:g}L{bx:g} {by:g}" for ax, ay, bx, by in ends)


def skeleton(motion: Float[Tensor, "f j 3"], fps: int, beats: list[float]) -> Skeleton | None:
    """A dance as it is drawn, seen from the front and a little from the side.

    Args:
        motion: Metres, joints as in `data.skeleton`.
        fps: Frames a second.
        beats: Seconds at which the dancer is slowest.

    Returns:
        The drawing; `None` for another number of joints.
    """
    if motion.shape[1] != len(JOINTS):
        return None
    stride = max(1, round(fps / FRAMES_PER_SECOND))
    motion = motion[::stride].double().cpu()
    head = motion[:, :FACE].mean(1, keepdim=True)
    neck = motion[:, FACE : FACE + 2].mean(1, keepdim=True)
    x, y, z = torch.cat([motion, head, neck], dim=1).unbind(-1)
    across = x * torch.cos(torch.tensor(TURN)) + z * torch.sin(torch.tensor(TURN))
    points, scale = fitted(torch.stack([across, -y], dim=-1))
    frames = [[round(number, 1) for number in frame.flatten().tolist()] for frame in points]
    lines = [(a, b, side(a, b)) for a, b in LINES]
    return Skeleton(frames, fps / stride, lines, round(HEAD_SIZE * scale, 1), beats)


def fitted(points: Float[Tensor, "f p 2"]) -> tuple[Float[Tensor, "f p 2"], float]:
    """Points in the picture, as large as all frames allow; and pixels a metre."""
    low, high = points.flatten(0, 1).amin(0), points.flatten(0, 1).amax(0)
    low[1] -= HEAD_SIZE
    size = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = float((size / (high - low).clamp(min=1e-6)).min())
    corner = torch.tensor([WIDTH / 2, HEIGHT - MARGIN]) - scale * torch.stack([(low[0] + high[0]) / 2, high[1]])
    return points * scale + corner, scale


def side(first: int, second: int) -> str:
    """The side of the body that a line is on."""
    names = [JOINTS[number].split("_")[0] if number < len(JOINTS) else "middle" for number in (first, second)]
    return names[0] if names[0] == names[1] else "middle"
