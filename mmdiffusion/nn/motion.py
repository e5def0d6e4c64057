"""A conditioner that watches a dance as a sequence in time, and what every such conditioner reads."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.positions import sine_positions
from mmdiffusion.types import Batch, Condition, DataSpec, LabelSpec, MotionFeatureSpec, MotionSpec


class MotionConditioner(Conditioner):
    """A dance as a sequence of tokens with time positions, its genre beside it; everything is trained.

    Joints are taken relative to the hips, with their velocities; of `motion_features`, which are read in their place
    where the data has them, each frame is normalised. Strided convolutions make `tokens_per_second` tokens a second.
    The vector is a fusion of the mean token and the genre's embedding.

    Args:
        spec: The data: a motion, and perhaps a label, the genre.
        width: Width of the context tokens.
        vector_width: Width of the vector.
        tokens_per_second: Tokens a second, a divisor of the motion's frames a second.
        depth: Residual convolutions after the first.
        kernel: Tokens that a residual convolution sees, odd.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 128,
        vector_width: int = 64,
        tokens_per_second: int = 20,
        depth: int = 4,
        kernel: int = 5,
    ) -> None:
        name, motion = movement(spec)
        genre = genre_of(spec)
        super().__init__((name,) if genre is None else (name, "label"), vector_width, width)
        if tokens_per_second < 1 or motion.fps % tokens_per_second:
            raise ValueError(
                f"tokens_per_second is {tokens_per_second}: expected a divisor of {motion.fps} frames a second"
            )
        self.motion, self.stride = motion, motion.fps // tokens_per_second
        length = motion.num_frames // self.stride
        self.enter = nn.Conv1d(frame_width(motion), width, 2 * self.stride + 1, self.stride, self.stride)
        self.blocks = nn.ModuleList(ConvolutionBlock(width, kernel) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", sine_positions((length,), width), persistent=False)
        self.genre = None if genre is None else nn.Embedding(genre.num_classes, vector_width)
        self.fusion = nn.Linear(width + (0 if genre is None else vector_width), vector_width)
        self.null_token = nn.Parameter(0.02 * torch.randn(width))
        self.null_vector = nn.Parameter(0.02 * torch.randn(vector_width))

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """The dance as the denoiser reads it; see `Conditioner`."""
        motion = known[self.reads[0]]
        assert isinstance(motion, Tensor)
        x = self.enter(features(motion.to(self.null_token.device), self.motion).mT)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x.mT[:, : len(self.get_buffer("positions"))])
        parts = [tokens.mean(1)]
        if self.genre is not None:
            label = known["label"]
            assert isinstance(label, Tensor)
            parts.append(self.genre(label.to(self.null_token.device)))
        vector = self.fusion(torch.cat(parts, dim=1))
        if is_dropped is not None:
            tokens = torch.where(is_dropped[:, None, None], self.null_token, tokens)
            vector = torch.where(is_dropped[:, None], self.null_vector, vector)
        return Condition(vector=vector, tokens=tokens + self.get_buffer("positions"))

    def null(self, batch_size: int) -> Condition:
        """Nothing is known; see `Conditioner`."""
        tokens = self.null_token + self.get_buffer("positions")
        return Condition(self.null_vector.expand(batch_size, -1), tokens.expand(batch_size, -1, -1))


class ConvolutionBlock(nn.Module):
    """Normalise, convolve in time, mix channels, add.

    Args:
        width: Width of the tokens.
        kernel: Tokens it sees, odd.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: expected an odd number of tokens, with one in the middle")
        self.norm = nn.LayerNorm(width)
        self.convolve = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "b width n"]) -> Float[Tensor, "b width n"]:
        """Tokens with what is near them."""
        return x + self.mix(F.gelu(self.convolve(self.norm(x.mT).mT)))


def movement(spec: DataSpec) -> tuple[str, MotionSpec | MotionFeatureSpec]:
    """The modality that describes how a body moves: `motion_features` where the data has them, else `motion`.

    Returns:
        Its name, and its description.

    Raises:
        ValueError: if the data has neither.
    """
    for name in ("motion_features", "motion"):
        found = spec.get(name)
        if isinstance(found, MotionSpec | MotionFeatureSpec):
            return name, found
    raise ValueError(f"spec has {', '.join(spec)}: expected data with a motion, such as Dance")


def genre_of(spec: DataSpec) -> LabelSpec | None:
    """The genres of the data; `None` where it has none."""
    genre = spec.get("label")
    return genre if isinstance(genre, LabelSpec) else None


def frame_width(motion: MotionSpec | MotionFeatureSpec) -> int:
    """Numbers a frame that `features` makes."""
    return 6 * motion.num_joints if isinstance(motion, MotionSpec) else motion.num_features


def features(
    motion: Float[Tensor, "b f coordinates"], spec: MotionSpec | MotionFeatureSpec
) -> Float[Tensor, "b f features"]:
    """What a network reads of a frame.

    Of positions: joints relative to the middle of the hips, and the velocities of all joints. Of other numbers, whose
    units may be pixels as well as metres: themselves, with mean 0 and variance 1 in each frame.

    Args:
        motion: Positions in metres, COCO's joints; or other numbers.
        spec: Its shape.

    Raises:
        ValueError: if the shape is another, or a number is not finite.
    """
    width = 3 * spec.num_joints if isinstance(spec, MotionSpec) else spec.num_features
    if tuple(motion.shape[1:]) != (spec.num_frames, width):
        raise ValueError(f"motion has shape {tuple(motion.shape[1:])}: expected {(spec.num_frames, width)}")
    broken = ~motion.isfinite().flatten(1).all(1)
    if broken.any():
        raise ValueError(
            f"motion has numbers that are not finite in {int(broken.sum())} of {len(motion)} clips: expected positions "
            "in metres; drop or repair these clips"
        )
    if isinstance(spec, MotionFeatureSpec):
        return F.layer_norm(motion, motion.shape[2:])
    joints = motion.unflatten(2, (spec.num_joints, 3))
    hips = joints[:, :, 11:13].mean(2, keepdim=True)
    velocity = torch.diff(joints, dim=1, prepend=joints[:, :1]) * spec.fps
    return torch.cat([joints - hips, velocity], dim=2).flatten(2)
