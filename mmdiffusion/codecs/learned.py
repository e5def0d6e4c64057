"""Tokens that were learned here: the frozen first stage of a `VQAutoencoder` run."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.checkpoints import checkpoint_of, read_checkpoint
from mmdiffusion.codecs.frozen import FrozenCodec
from mmdiffusion.nn.autoencoder import QuantisedAutoencoder
from mmdiffusion.types import DataSpec, MusicSpec


class LearnedTokens(FrozenCodec):
    """Tokens of images or audio by a trained `VQAutoencoder`, with its averaged weights.

    Args:
        spec: The data, which has the modality that the autoencoder was trained on, of the same size.
        path: Run folder of a `VQAutoencoder`, one of its checkpoints, or its export.

    Raises:
        ValueError: if there is none at `path`, another method wrote it, or it was built for other data.
    """

    def __init__(self, spec: DataSpec, path: str) -> None:
        checkpoint = checkpoint_of(path)
        if not checkpoint.is_file():
            raise ValueError(
                f"path is {path}: expected a run of VQAutoencoder, but {checkpoint} is missing; "
                "train one with `mmdiffusion fit -c configs/vq_autoencoder/... --run FOLDER`"
            )
        contents = read_checkpoint(checkpoint)
        if "autoencoder" not in contents:
            found = contents["hyper_parameters"]["_class_path"]
            raise ValueError(f"path is {path}: written by {found}, expected a run of VQAutoencoder")
        modality, built_for = contents["autoencoder"]["modality"], contents["autoencoder"]["spec"]
        if spec.get(modality) != built_for:
            raise ValueError(
                f"path is {path}: built for {modality} {built_for}, but the data has {spec.get(modality)}; "
                "train a VQAutoencoder on this data, or take the data of that run"
            )
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn before the trained ones replace them
            network = QuantisedAutoencoder(built_for, **contents["autoencoder"]["settings"])
        weights = contents["state_dict"].items()
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in weights})
        super().__init__(network, network.latent, modality)
        self.data_spec = built_for
        self.sample_rate = built_for.sample_rate if isinstance(built_for, MusicSpec) else None

    def to_tokens(self, data: Float[Tensor, "b ..."]) -> Int[Tensor, "b *grid"]:
        """The nearest codes; see `FrozenCodec`."""
        if tuple(data.shape[-len(self.network.size) :]) != self.network.size:
            raise ValueError(f"{self.source} has shape {tuple(data.shape[1:])}: expected that of {self.data_spec}")
        return self.network.encode(data)

    def to_data(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b ..."]:
        """The decoder's reconstruction; see `FrozenCodec`."""
        return self.network.decode(tokens)
