"""MT-Diffusion's network: the denoiser, what it is told of extra modalities, and the heads that read them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mmdiffusion.methods.extras import ExtraModality
from mmdiffusion.methods.space import Space, State
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.encoders import OwnToken, Shape
from mmdiffusion.nn.heads import Head, HeadShape, Output
from mmdiffusion.nn.modalities import Image, patchify, unpatchify
from mmdiffusion.nn.states import WIDTH, Told, together
from mmdiffusion.nn.table_encoders import BackboneEncoder

Times = Int[Tensor, " b"]


class JointNetwork(nn.Module):
    """A denoiser over the image's channels and the extras' own, beside pictures that are shown.

    Args:
        shape: Channels, height and width of the image.
        patch_size: Pixels a side of one token.
        num_steps: T.
        extras: The extra modalities.
        denoiser: Makes the denoiser from its grid, channels and widths of conditions.
        heads: Makes the head of each extra, by name.

    Raises:
        ValueError: if patches do not fill the image.
    """

    def __init__(
        self,
        shape: Shape,
        patch_size: int,
        num_steps: int,
        extras: Sequence[ExtraModality],
        denoiser: Callable[[tuple[int, int], int, int, int | None, int | None, int | None], Denoiser],
        heads: Mapping[str, Callable[[HeadShape], Head]],
    ) -> None:
        super().__init__()
        if patch_size < 1 or shape[1] % patch_size:
            raise ValueError(
                f"patch_size is {patch_size}: expected a divisor of {shape[1]}, the side of what is diffused"
            )
        self.patch_size, self.num_steps = patch_size, num_steps
        self.extras = nn.ModuleDict({extra.name: extra for extra in extras})
        self.space = Space(shape, extras)
        side, area = shape[1] // patch_size, patch_size**2
        planes = sum(extra.teller.num_planes for extra in extras)
        token = None if self.space.token is None else self.space.token.encoder
        self.denoiser = denoiser(
            (side, side),
            area * (self.space.num_pictures + planes),
            area * self.space.num_pictures,
            WIDTH if extras else None,
            WIDTH if any(extra.teller.in_context for extra in extras) else None,
            token.width if isinstance(token, OwnToken) else None,
        )
        for extra in extras:
            taps = self.denoiser.tap_widths
            extra.head = heads[extra.name](HeadShape(extra.spec, taps, shape, patch_size, extra.encoder))

    def each(self) -> list[ExtraModality]:
        """The extra modalities in their order."""
        return [extra for extra in self.extras.values() if isinstance(extra, ExtraModality)]

    def extra(self, name: str) -> ExtraModality:
        """One extra modality, by its name."""
        extra = self.extras[name]
        assert isinstance(extra, ExtraModality)
        return extra

    def forward(self, noisy: State, time: Times, told: Sequence[Told]) -> tuple[Image, dict[str, Output]]:
        """What is predicted of the image at z_t, and what the heads read, all float32.

        Args:
            noisy: z_t.
            time: t, 1 to T.
            told: What the network is told of each extra modality, in their order.
        """
        share, query = time / self.num_steps, self.space.query(noisy)
        pictures, (condition, planes) = self.space.pictures(noisy), together(told)
        tokens = patchify(pictures if planes is None else torch.cat([pictures, planes], dim=1), self.patch_size)
        times = share if query is None else torch.stack([share, share], dim=1)
        denoised = self.denoiser(tokens, times, condition, query=query)
        made = unpatchify(denoised.prediction, self.patch_size).float()
        image, outputs = made[:, : self.space.image_channels], {}
        for extra in self.each():
            own = made[:, extra.channels] if extra.has_own_map else made[:, :0]
            outputs[extra.name] = extra.head(denoised, image, own, share).float()
        return image, outputs

    def encode(self, known: Mapping[str, Tensor]) -> dict[str, State]:
        """Encodings of known values, each in its place.

        Args:
            known: Values by name of the extra modality.
        """
        return {
            name: self.space.lift(self.extra(name).encode(value), self.extra(name)) for name, value in known.items()
        }

    @torch.no_grad()
    def ask_backbone(self, name: str, encoder: BackboneEncoder) -> None:
        """Encode each class by what the network predicts of one noise when shown it (arXiv 2407.17571, Fig. 3).

        Args:
            name: The extra modality.
            encoder: Its encoder, whose table is replaced.
        """
        classes = torch.arange(len(encoder.table), device=encoder.table.device)
        time = torch.full_like(classes, max(1, round(encoder.time * self.num_steps)))
        noise = self.space.lift(encoder.noise.expand(len(classes), -1, -1, -1))
        encoder.refresh(self(noise, time, self.tell({name: classes}, (), len(classes)))[0])

    def tell(self, known: Mapping[str, Tensor], drawn: Sequence[str], size: int) -> list[Told]:
        """What it is told in sampling of each extra: its value, that it is drawn and so hidden, or that it is nowhere.

        Args:
            known: Values of known extras.
            drawn: Names of those that are drawn.
            size: Samples.
        """
        device = next(self.parameters()).device
        everywhere, nowhere = (torch.full((size,), is_so, device=device) for is_so in (True, False))
        return [
            extra.teller(known[extra.name], everywhere, nowhere)
            if extra.name in known
            else extra.teller.unknown(size, is_absent=extra.name not in drawn)
            for extra in self.each()
        ]
