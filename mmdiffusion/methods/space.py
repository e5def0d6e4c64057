"""The diffusion space of MT-Diffusion: the image's channels, and those that extra modalities have for themselves."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.methods.extras import ExtraModality
from mmdiffusion.nn.encoders import OwnToken, Shape

State = Float[Tensor, "b z h w"]


class Space:
    """Where each modality is in a state z: [image | own pictures and maps | own vectors].

    Args:
        shape: Channels, height and width of the image.
        extras: The extra modalities; each is told its channels.

    Raises:
        ValueError: if more than one has a token of its own.
    """

    def __init__(self, shape: Shape, extras: Iterable[ExtraModality]) -> None:
        own = [extra for extra in extras if extra.encoder.own_channels]
        vectors = [extra for extra in own if extra.encoder.is_vector]
        if len(vectors) > 1:
            names = " and ".join(extra.name for extra in vectors)
            raise ValueError(f"extras has OwnToken for {names}: expected one at most, the denoiser has one query")
        start = self.num_pictures = shape[0]
        for extra in [*(extra for extra in own if extra not in vectors), *vectors]:
            extra.channels = slice(start, start + extra.encoder.own_channels)
            start = extra.channels.stop
            if extra not in vectors:
                self.num_pictures = start
        self.image_channels, self.num_channels = shape[0], start
        self.shape = (start, *shape[1:])
        self.token = vectors[0] if vectors else None

    def lift(self, values: Float[Tensor, "b e h w"], extra: ExtraModality | None = None) -> State:
        """Values in their place, zeros elsewhere.

        Args:
            values: Encodings of an extra modality, or images.
            extra: The modality; `None` for images.
        """
        channels = slice(0, self.image_channels) if extra is None else extra.channels
        before, after = channels.start, self.num_channels - channels.stop
        return F.pad(values, (0, 0, 0, 0, before, after)) if before or after else values

    def pictures(self, state: State) -> Float[Tensor, "b p h w"]:
        """What the denoiser reads in patches."""
        return state[:, : self.num_pictures]

    def query(self, state: State) -> Float[Tensor, "b one d"] | None:
        """What the denoiser reads as one more token."""
        if self.token is None:
            return None
        assert isinstance(self.token.encoder, OwnToken)
        return self.token.encoder.vector(state[:, self.token.channels])[:, None]
