"""VQ-VAE: vector-quantised autoencoder (van den Oord et al., NeurIPS 2017, arXiv 1711.00937).

The first stage of models of tokens: a picture or a clip becomes a grid of codes, and is rebuilt from them. What is
learned here is what `codecs.LearnedTokens` hands out, frozen.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mmdiffusion.losses import perplexity, spectral_distance
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.checks import check_counts
from mmdiffusion.nn.autoencoder import QuantisedAutoencoder
from mmdiffusion.numbers import check_number
from mmdiffusion.types import Batch, DataSpec, ImageSpec, MusicSpec

RECONSTRUCTION = "reconstruction"
"""Entry of a batch that is made."""


class VQAutoencoder(Method):
    """Tokens of one modality, learned by rebuilding it. Given `image` or `music`, it makes `reconstruction`.

    Args:
        spec: The data's modalities; linked from the data module.
        network: The autoencoder, all but its data.
        modality: What is rebuilt: a modality of images or of audio.
        squared_weight: Weight of the mean squared error.
        absolute_weight: Weight of the mean absolute error, which blurs less.
        spectral_weight: Weight of the multi-scale spectral distance, for audio only.
        commitment_weight: Weight of the distance of encodings to their codes (0.25 in the paper).
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        network: Callable[[ImageSpec | MusicSpec], QuantisedAutoencoder],
        modality: str = "image",
        squared_weight: float = 1.0,
        absolute_weight: float = 0.0,
        spectral_weight: float = 0.0,
        commitment_weight: float = 0.25,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        source = spec.get(modality)
        if not isinstance(source, ImageSpec | MusicSpec):
            raise ValueError(f"modality is {modality!r}: expected images or audio among {', '.join(spec)}")
        weights = {"squared": squared_weight, "absolute": absolute_weight, "spectral": spectral_weight}
        check_weights(weights, commitment_weight, source)
        super().__init__(optimizer, warmup_steps, seed, givable=(modality,), drawable=(RECONSTRUCTION,))
        self.save_hyperparameters(logger=False)
        self.modality, self.source = modality, source
        self.sample_rate = source.sample_rate if isinstance(source, MusicSpec) else None
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.commitment_weight = commitment_weight
        self.network = network(source)

    # Training --------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Errors of the reconstruction, each with its weight, + weight x commitment; and how the codebook is used.

        van den Oord et al. 2017, Eq. 3; its second term is a running mean here (App. A.1).
        """
        data = batch[self.modality]
        assert isinstance(data, Tensor)
        rebuilt = self.network(data, generator)
        terms = {name: error(name, rebuilt.data.float(), data) for name in self.weights}
        terms["commitment"] = rebuilt.commitment
        num_codes = self.network.latent.num_codes
        use = {
            "perplexity": perplexity(rebuilt.tokens, num_codes),
            "used": torch.bincount(rebuilt.tokens.flatten(), minlength=num_codes).bool().float().mean(),
        }
        return self.summed(terms | use)

    def weighed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Errors and the commitment, each with its weight; see `Method`."""
        weights = self.weights | {"commitment": self.commitment_weight}
        return {name: weight * terms[name] for name, weight in weights.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write beside the weights what a frozen codec needs to rebuild the network."""
        super().on_save_checkpoint(checkpoint)
        settings = {"modality": self.modality, "spec": self.source, "settings": self.network.settings}
        checkpoint["autoencoder"] = settings

    # Reconstruction --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        condition: Batch,
        *,
        seeds: Sequence[int],
        drawn: Sequence[str] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Batch:
        """Rebuild what is given; nothing is drawn at random.

        Args:
            condition: The modality itself.
            seeds: One number per sample, its index.
            drawn: `reconstruction`, or `None`.
            steps: `None`: there are no steps.
            guidance: `None`: there is none.

        Returns:
            `reconstruction` in [-1, 1], its `tokens` (b *grid), what was given, and `index` (b).

        Raises:
            ValueError: if anything else is asked for.
        """
        self.check_request(condition, drawn, guidance)
        for name, value in (("steps", steps), ("guidance", guidance)):
            if value is not None:
                raise ValueError(f"{name} is {value}: expected None, a reconstruction is not drawn")
        check_counts(condition, len(seeds))
        data = condition[self.modality]
        assert isinstance(data, Tensor)
        tokens = self.network.encode(data.to(self.device))
        made: Batch = {RECONSTRUCTION: self.network.decode(tokens), "tokens": tokens}
        return {**condition, **made, "index": torch.tensor(seeds, device=self.device)}

    def check_request(
        self,
        given: Collection[str],
        drawn: Sequence[str] | None,
        guidance: float | None = None,
    ) -> None:
        """Check that there is something to rebuild; see `Method`."""
        super().check_request(given, drawn, guidance)
        if not given:
            raise ValueError(f"given is nothing: expected {self.modality}, which is rebuilt")

    def protocol(self) -> dict[str, Any]:
        """The size of the bottleneck."""
        return {"num_codes": self.network.latent.num_codes, "grid": list(self.network.latent.grid)}


def error(name: str, estimate: Float[Tensor, "b *size"], target: Float[Tensor, "b *size"]) -> Float[Tensor, ""]:
    """One error of a reconstruction: squared, absolute or spectral."""
    if name == "spectral":
        return spectral_distance(estimate, target)
    difference = estimate - target
    return difference.square().mean() if name == "squared" else difference.abs().mean()


def check_weights(weights: dict[str, float], commitment_weight: float, source: ImageSpec | MusicSpec) -> None:
    """Check the weights of the loss.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    for name, weight in (weights | {"commitment": commitment_weight}).items():
        check_number(f"{name}_weight", weight, least=0)
    if not any(weights.values()):
        raise ValueError("squared_weight, absolute_weight and spectral_weight are 0: expected one above 0")
    if weights["spectral"] and isinstance(source, ImageSpec):
        raise ValueError(f"spectral_weight is {weights['spectral']}: expected 0 for images, it measures audio")
