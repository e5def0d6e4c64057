"""The dance encoder of the paper and its public code: a whole dance in one token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import weight_norm

from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.motion import features, frame_width, genre_of, movement
from mmdiffusion.types import Batch, Condition, DataSpec, FeatureSpec

DILATIONS = (1, 3, 9, 27)
_FIRST_KERNEL, _KERNEL = 6, 4
_SLOPE = 0.2


class ReferenceMotionConditioner(Conditioner):
    """A dance as one token, to compare with: named `reference`, after the published encoder.

    Zhu et al. 2022 (arXiv 2206.07771) and its public code, github.com/L-YeZhu/CDCD, whose encoder comes from D2M-GAN
    (arXiv 2204.00604): each frame is mapped to `num_features` numbers; then the *frames* are the channels of
    convolutions over these numbers, in stages of weight-normalised residual blocks, down to one channel; what is left
    is mapped to a token, and fused with an embedding of the genre and, where the data has one, with the feature of the
    video, `video`. Attention over one token gives every query the
    same answer, so no note can be told from it *when* something happens: `is_aligned` has no use for it.

    In the public code no gradient reaches the encoder or the genre's embedding; here all is trained. Frames are read as
    by `MotionConditioner`, and the variance of a signal is kept at the start, where the public code draws weights with
    a standard deviation of 0.02: channels as few as these would shrink it to nothing.

    Args:
        spec: The data: a motion, perhaps a label, the genre, and a video's feature.
        width: Width of the token (1,024 in the paper).
        num_features: Numbers a frame is mapped to (800 in the public code).
        channels: Channels of each stage (512, 512 and 1,024 in the public code).
        genre_width: Width of the genre's embedding (256 in the public code).
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 128,
        num_features: int = 96,
        channels: tuple[int, ...] = (64, 64, 128),
        genre_width: int = 32,
    ) -> None:
        (name, motion), genre, video = movement(spec), genre_of(spec), spec.get("video")
        beside = {"label": genre is not None, "video": isinstance(video, FeatureSpec)}
        super().__init__((name, *(other for other, is_there in beside.items() if is_there)), None, width)
        self.video_width = video.shape[0] if isinstance(video, FeatureSpec) else 0
        check_sizes(width, num_features, channels, genre_width)
        self.motion = motion
        self.enter = nn.Linear(frame_width(motion), num_features)
        self.stages, before, kernel = nn.Sequential(), motion.num_frames, _FIRST_KERNEL
        for after in channels:
            self.stages.append(convolution(before, after, kernel))
            self.stages.extend(ResidualBlock(after, dilation) for dilation in DILATIONS)
            before, kernel = after, _KERNEL
        self.stages.extend([nn.LeakyReLU(_SLOPE), convolution(before, 1, _KERNEL)])
        self.leave = nn.Linear(num_features - shortening(len(channels)) - _KERNEL + 1, width)
        self.genre = None if genre is None else nn.Embedding(genre.num_classes, genre_width)
        self.fusion = nn.Linear(width + (0 if genre is None else genre_width) + self.video_width, width)
        self.null_token = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """The dance as the denoiser reads it; see `Conditioner`."""
        motion, label, video = (known.get(name) for name in (self.reads[0], "label", "video"))
        assert isinstance(motion, Tensor)
        device = self.null_token.device
        frames = self.enter(features(motion.to(device), self.motion))
        parts = [self.leave(self.stages(frames)[:, 0])]
        if self.genre is not None:
            assert isinstance(label, Tensor)
            parts.append(self.genre(label.to(device)))
        if self.video_width:
            assert isinstance(video, Tensor)
            parts.append(video.to(parts[0]))
        token = self.fusion(torch.cat(parts, dim=1))
        if is_dropped is not None:
            token = torch.where(is_dropped[:, None], self.null_token, token)
        return Condition(tokens=token[:, None])

    def null(self, batch_size: int) -> Condition:
        """Nothing is known; see `Conditioner`."""
        return Condition(tokens=self.null_token.expand(batch_size, 1, -1))


class ResidualBlock(nn.Module):
    """A dilated convolution and one that mixes channels, added to a shortcut that is a convolution too.

    Kumar et al. 2019 (MelGAN, arXiv 1910.06711), from which the public code has it.

    Args:
        width: Number of channels.
        dilation: Distance between the three numbers that the first convolution sees.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolve = convolution(width, width, 3, dilation)
        self.mix = convolution(width, width, 1)
        self.shortcut = convolution(width, width, 1)

    def forward(self, x: Float[Tensor, "b width n"]) -> Float[Tensor, "b width n"]:
        """Numbers with what is near them; the ends are reflected, so n exceeds the dilation."""
        y = pad(nn.functional.leaky_relu(x, _SLOPE), (self.dilation, self.dilation), "reflect")
        y = self.mix(nn.functional.leaky_relu(self.convolve(y), _SLOPE))
        return self.shortcut(x) + y


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
    """A weight-normalised convolution without padding that keeps the variance of its input at the start.

    Args:
        inputs: Channels it takes.
        outputs: Channels it gives.
        kernel: Numbers it sees.
        dilation: Distance between them.
    """
    layer = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return weight_norm(layer)


def shortening(num_stages: int) -> int:
    """Numbers that the convolutions at the head of so many stages take off a frame's."""
    return _FIRST_KERNEL - 1 + (num_stages - 1) * (_KERNEL - 1)


def check_sizes(width: int, num_features: int, channels: tuple[int, ...], genre_width: int) -> None:
    """Check the sizes of the encoder.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if min(width, genre_width) < 1:
        raise ValueError(f"width is {width}, genre_width is {genre_width}: expected at least 1 of each")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels is {list(channels)}: expected at least one stage, with 1 channel or more each")
    least = shortening(len(channels)) + max(DILATIONS) + 1
    if num_features < least:
        raise ValueError(
            f"num_features is {num_features}: expected at least {least}, which {len(channels)} stages with dilations "
            f"up to {max(DILATIONS)} need"
        )
