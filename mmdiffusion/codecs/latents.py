"""Codecs of continuous latents: an image as what is diffused, and back."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.codecs.frozen import FrozenNetwork
from mmdiffusion.codecs.pretrained import check_folder, latent_side, load, needs
from mmdiffusion.types import Batch, DataSpec, ImageSpec

Images = Float[Tensor, "b c h w"]
Latents = Float[Tensor, "b channels rows columns"]


class LatentCodec(Encoder):
    """A frozen first stage of images with continuous latents.

    Args:
        image: The images.
        latent: Channels and size of the latents.
        clip: Largest absolute value of a latent, when there is one.
    """

    def __init__(self, image: ImageSpec, latent: ImageSpec, clip: float | None) -> None:
        super().__init__()
        self.image, self.latent, self.clip = image, latent, clip

    reads = "image"

    @abstractmethod
    def parts(self, values: Images) -> dict[str, Tensor]:
        """`mean` of the latents and, where they are random, their standard `deviation`, (b channels rows columns) each.

        Args:
            values: Images in [-1, 1].

        Raises:
            ValueError: if they are not of the size that the codec was built for.
        """

    def draw(self, parts: dict[str, Tensor], noise: Latents | None = None) -> Latents:
        """Latents from their mean and deviation.

        Args:
            parts: As `parts` makes them.
            noise: Standard normal numbers, for a draw where latents are random; `None` takes their mean.
        """
        mean, deviation = parts["mean"], parts.get("deviation")
        return mean if noise is None or deviation is None else mean + deviation * noise

    def encode(self, images: Images, noise: Latents | None = None) -> Latents:
        """Latents of images.

        Args:
            images: Images in [-1, 1].
            noise: See `draw`.
        """
        return self.draw(self.parts(images), noise)

    def latents(self, batch: Batch, generator: torch.Generator | None) -> Latents:
        """Latents of a batch's images, encoded now or in a cache.

        Args:
            batch: Has `image`, or its parts.
            generator: Source of a draw where latents are random; `None` takes their mean.
        """
        parts = self.of(batch)
        deviation = parts.get("deviation")
        if deviation is None or generator is None:
            return self.draw(parts)
        return self.draw(parts, torch.randn(deviation.shape, generator=generator, device=generator.device))

    @abstractmethod
    def decode(self, latents: Latents) -> Images:
        """Images in [-1, 1] that latents stand for.

        Args:
            latents: Latents.
        """

    def check(self, images: Images) -> None:
        """Check the shape of images.

        Raises:
            ValueError: if it is not the one that the codec was built for.
        """
        expected = (self.image.channels, self.image.size, self.image.size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"image has shape {tuple(images.shape[1:])}: expected {expected} (channels, height, width); resize it, "
                "or convert its colours"
            )


class Pixels(LatentCodec):
    """Images are their own latents.

    Args:
        spec: The data, which has `image`.
    """

    is_plain = True

    def __init__(self, spec: DataSpec) -> None:
        image = image_of(spec, "Pixels")
        super().__init__(image, image, clip=1.0)

    def parts(self, values: Images) -> dict[str, Tensor]:
        """The images; see `LatentCodec`."""
        self.check(values)
        return {"mean": values}

    def decode(self, latents: Latents) -> Images:
        """The latents; see `LatentCodec`."""
        return latents.clamp(-1, 1)


class AutoencoderKLLatents(FrozenNetwork, LatentCodec):
    """Latents of diffusers' `AutoencoderKL` (Rombach et al. 2022, arXiv 2112.10752), scaled to about unit variance.

    Args:
        spec: The data, which has `image`.
        path: Folder with weights, such as the `vae` of a download of Stable Diffusion.

    Raises:
        ValueError: if there are no weights at `path`, or they do not suit the data.
    """

    def __init__(self, spec: DataSpec, path: str) -> None:
        try:
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        except ImportError as error:
            raise needs("pretrained", "diffusers", error) from error

        image = image_of(spec, "AutoencoderKLLatents")
        check_folder(path, "_class_name", "AutoencoderKL", "stabilityai/sd-vae-ft-mse")
        network = load(AutoencoderKL, path, low_cpu_mem_usage=False)  # the default asks for one more library, and warns
        config: Any = network.config
        side = latent_side(config, image, path)
        super().__init__(image, ImageSpec(config.latent_channels, side), clip=None)
        self.hold(network)
        self.scale, self.shift = config.scaling_factor, config.shift_factor or 0.0

    @torch.no_grad()
    def parts(self, values: Images) -> dict[str, Tensor]:
        """(posterior mean - shift) * scale, and deviation * scale; see `LatentCodec`."""
        self.check(values)
        with torch.autocast(values.device.type, enabled=False):
            posterior = self.network.encode(values.to(self.dtype)).latent_dist
            mean = (posterior.mean.float() - self.shift) * self.scale
            return {"mean": mean, "deviation": posterior.std.float() * self.scale}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """The decoder's images; see `LatentCodec`."""
        with torch.autocast(latents.device.type, enabled=False):
            made = self.network.decode((latents / self.scale + self.shift).to(self.dtype)).sample
        return made.float().clamp(-1, 1)


def image_of(spec: DataSpec, codec: str) -> ImageSpec:
    """The images of data.

    Raises:
        ValueError: if it has none.
    """
    image = spec.get("image")
    if not isinstance(image, ImageSpec):
        raise ValueError(f"spec has {', '.join(spec)}: {codec} expects data with image")
    return image
