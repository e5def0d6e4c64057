"""Image tokens of a released VQGAN, as diffusers keeps it."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.codecs.frozen import FrozenCodec
from mmdiffusion.codecs.pretrained import check_folder, latent_side, load, needs
from mmdiffusion.types import DataSpec, ImageSpec, TokenSpec


class VQModelTokens(FrozenCodec):
    """Tokens of diffusers' `VQModel` (VQGAN, Esser et al. 2021, arXiv 2012.09841), trained on images in [-1, 1].

    Args:
        spec: The data, which has `image`.
        path: Folder with weights, such as the `vqvae` of a download of `CompVis/ldm-celebahq-256`.

    Raises:
        ValueError: if there are no weights at `path`, or they do not suit the data.
    """

    def __init__(self, spec: DataSpec, path: str) -> None:
        try:
            from diffusers.models.autoencoders.vq_model import VQModel
        except ImportError as error:
            raise needs("pretrained", "diffusers", error) from error

        image = spec.get("image")
        if not isinstance(image, ImageSpec):
            raise ValueError(f"spec has {', '.join(spec)}: VQModelTokens expects data with image")
        check_folder(path, "_class_name", "VQModel", "CompVis/ldm-celebahq-256")
        network = load(VQModel, path, low_cpu_mem_usage=False)  # the default asks for one more library, and warns
        config: Any = network.config
        side = latent_side(config, image, path)
        grid = (side, side)
        super().__init__(network, TokenSpec(config.num_vq_embeddings, grid), "image")
        self.shape = (image.channels, image.size, image.size)

    def to_tokens(self, data: Float[Tensor, "b c h w"]) -> Int[Tensor, "b rows columns"]:
        """The library's nearest codes; see `FrozenCodec`."""
        if tuple(data.shape[1:]) != self.shape:
            raise ValueError(f"image has shape {tuple(data.shape[1:])}: expected {self.shape}, as its spec says")
        network: Any = self.network
        _, _, (_, _, tokens) = network.quantize(network.encode(data).latents)
        return tokens.reshape(len(data), *self.latent.grid)

    def to_data(self, tokens: Int[Tensor, "b rows columns"]) -> Float[Tensor, "b c h w"]:
        """The library's decoder on the codes themselves; see `FrozenCodec`."""
        network: Any = self.network
        shape = (len(tokens), *self.latent.grid, network.quantize.vq_embed_dim)
        codes = network.quantize.get_codebook_entry(tokens.flatten(), shape)
        return network.decoder(network.post_quant_conv(codes), codes if network.config.norm_type == "spatial" else None)
