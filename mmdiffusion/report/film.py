"""What a sample looks like on its way from noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.callbacks.draws import Conditions, Draw
from mmdiffusion.callbacks.samples import to_unit
from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.latents import LatentCodec
from mmdiffusion.data.base import DataModule
from mmdiffusion.diffusion.discrete import MaskReplaceDiffusion
from mmdiffusion.diffusion.discrete_samplers import TokenSampler
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.methods.base import Method
from mmdiffusion.report.cells import Cell, cell
from mmdiffusion.report.uri import picture_uri
from mmdiffusion.types import Batch, FeatureSpec

NUM_SAMPLES, NUM_FRAMES = 4, 8
States = list[tuple[int, Tensor]]
"""Times t and states z_t of samples, the noisiest first."""


@dataclass(frozen=True)
class Film:
    """A few samples of one kind, from noise on.

    Args:
        name: The kind of sample.
        times: t / T of the frames.
        rows: Samples: what was given, the frames, and what was drawn beside them.
        is_strip: Frames are rows of tokens, and no pictures.
        is_small: Pictures of few pixels.
    """

    name: str
    times: list[float]
    rows: list[tuple[list[Cell], list[str], list[Cell]]]
    is_strip: bool
    is_small: bool


def film(method: Method, data: DataModule, name: str, draw: Draw) -> Film | None:
    """Draw samples and keep what they pass through: the first ones of the run's own kind.

    Args:
        method: Draws.
        data: Has the conditions.
        name: Kind of sample.
        draw: What is given.

    Returns:
        The film; `None` where nothing is denoised, as in reading a known image.

    Raises:
        ValueError: if the data are not there.
    """
    process = getattr(method, "diffusion", None)
    if not isinstance(process, GaussianDiffusion | MaskReplaceDiffusion):
        return None
    seeds = range(NUM_SAMPLES)
    given = Conditions(data, draw.given, "test").of(seeds)
    with watched(method) as states:
        made = method.sample(given, seeds=seeds, drawn=draw.drawn)
    if not states:
        return None
    frames = [*states, (0, last_state(method, made))]
    chosen = [frames[round(i * (len(frames) - 1) / (NUM_FRAMES - 1))] for i in range(NUM_FRAMES)]
    pictures = [pictured(method, state) for _, state in chosen]
    extras = {name: made[name] for name in method.drawable if name in made and name not in given}
    extras = {name: values for name, values in extras.items() if not isinstance(data.spec.get(name), FeatureSpec)}
    rows = [
        (cells(given, data, i), [picture_uri(picture[i]) for picture in pictures], cells(extras, data, i))
        for i in seeds
    ]
    times = [time / process.num_steps for time, _ in chosen]
    return Film(name, times, rows, is_strip=pictures[0].shape[-2] == 1, is_small=pictures[0].shape[-1] <= 64)


@contextmanager
def watched(method: Method) -> Iterator[States]:
    """States that a method passes through while it samples.

    Samplers know no observers, for neither training nor tests need one: what makes a step is replaced for a while.

    Args:
        method: Samples with a `sampler` of tokens, or with the steps of a Gaussian diffusion.
    """
    seen: States = []
    process: Any = getattr(method, "diffusion")  # noqa: B009 - a part that most methods have, but none must
    if isinstance(process, GaussianDiffusion):
        step = process.step

        def watching(predict: Any, noisy: Tensor, time: Tensor, *rest: Any, **options: Any) -> Tensor:
            seen.append((int(time[0]), noisy))
            return step(predict, noisy, time, *rest, **options)

        holder, place, replaced = vars(process), "step", watching
    else:
        holder, place, replaced = vars(method), "sampler", Watching(vars(method)["sampler"], seen)
    before = holder.get(place)
    holder[place] = replaced
    try:
        yield seen
    finally:
        holder.pop(place) if before is None else holder.update({place: before})


class Watching(TokenSampler):
    """A sampler that keeps the states it is given.

    Args:
        sampler: Makes the steps.
        seen: Is told times and states.
    """

    def __init__(self, sampler: TokenSampler, seen: States) -> None:
        self.sampler, self.seen = sampler, seen
        self.num_uniforms = sampler.num_uniforms  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(
        self,
        diffusion: MaskReplaceDiffusion,
        log_probs: Tensor,
        noisy: Tensor,
        time: Tensor,
        target: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Keep the state, and make the step; see `TokenSampler`."""
        self.seen.append((int(time[0]), noisy))
        return self.sampler(diffusion, log_probs, noisy, time, target, noise)


def last_state(method: Method, made: Batch) -> Tensor:
    """The state that a sample was decoded from, as `pictured` takes it."""
    tokens, image = made.get("tokens"), made.get("image")
    if isinstance(tokens, Tensor):
        return tokens.flatten(1)
    assert isinstance(image, Tensor)
    codec = getattr(method, "codec", None)
    return codec.encode(image) if isinstance(codec, LatentCodec) else image


def pictured(method: Method, state: Tensor) -> Float[Tensor, "b c h w"]:
    """States as pictures in [0, 1]; where tokens are masked, nothing is to be seen."""
    codec = getattr(method, "codec", None)
    if isinstance(codec, TokenCodec):
        return token_pictures(codec, state.unflatten(1, codec.latent.grid))
    if isinstance(codec, LatentCodec):
        return to_unit(codec.decode(state[:, : codec.latent.channels]))
    return to_unit(state[:, : getattr(method, "image").channels])  # noqa: B009


def token_pictures(codec: TokenCodec, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b 4 h w"]:
    """Tokens as what they stand for, where that is an image, or as a row of colours; masked ones are transparent.

    Args:
        codec: Whose tokens.
        tokens: Tokens, `num_codes` for a masked one.
    """
    is_masked = tokens == codec.latent.num_codes
    if codec.result == "image":
        colours = to_unit(codec.decode(tokens.masked_fill(is_masked, 0))).expand(-1, 3, -1, -1)
    else:
        colours = code_colours(tokens)
    seen = (~is_masked).float().cpu().reshape(len(tokens), 1, -1, tokens.shape[-1])
    return torch.cat([colours, F.interpolate(seen, tuple(colours.shape[-2:]))], dim=1)


def code_colours(tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b 3 h w"]:
    """A colour for each code, far from those of its neighbours, and grey for 0."""
    codes = tokens.cpu().reshape(len(tokens), 1, -1, tokens.shape[-1])
    hue = codes * 0.618034 % 1  # the golden ratio leaves no two of few codes close together
    phases = torch.tensor([0.0, 1 / 3, 2 / 3])[:, None, None]
    colours = 0.52 + 0.33 * torch.cos(2 * torch.pi * (hue - phases))
    return torch.where(codes == 0, 0.72, colours)


def cells(values: Batch, data: DataModule, row: int) -> list[Cell]:
    """One sample's values as they are shown."""
    shown = [cell(name, values[name][row], data.spec.get(name)) for name in values]
    return [each for each in shown if each is not None]
