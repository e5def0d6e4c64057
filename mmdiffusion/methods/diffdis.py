"""DiffDis: one network that draws an image for a caption and recognises an image (Huang et al., ICCV 2023, 2308.09306).

Generation diffuses the image, given the caption's tokens. Discrimination diffuses the caption's embedding, given the
clean image: from pure noise, the denoised embedding depends on the image alone, so it is an image embedding in the
space of the text tower, and classes are compared with it at the price of a product.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.codecs.latents import LatentCodec
from mmdiffusion.codecs.text import Text, TextTower
from mmdiffusion.diffusion.gaussian import GaussianDiffusion, PredictionKind, Sampler
from mmdiffusion.diffusion.schedules import NoiseSchedule
from mmdiffusion.methods.base import Method, ParameterGroup
from mmdiffusion.methods.checks import (
    check_counts,
    check_pairs,
    check_trained,
    check_unit_shares,
    check_weights,
)
from mmdiffusion.methods.recognition import Embeddings, Recognition, check_texts
from mmdiffusion.methods.text_query import TextQuery
from mmdiffusion.nn.alignment import AlignmentHead, Look, look
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.modalities import Image, patchify, unpatchify
from mmdiffusion.nn.text import TowerConditioner
from mmdiffusion.nn.text_stream import Direction
from mmdiffusion.numbers import check_numbers
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import Batch, Condition, DataSpec

Times = Int[Tensor, " b"]


class DiffDis(Method, Recognition):
    """Images for captions, and captions for images.

    Args:
        spec: The data's modalities; linked from the data module.
        codec: First stage of the images; frozen.
        tower: Reader of the captions; frozen.
        conditioner: What the tower's tokens become for the denoiser.
        denoiser: Denoiser, all but its grid, channels and widths of conditions; its `query_direction` says whether the
            image sees the query.
        head: Reads the clean embedding behind the middle.
        schedule: Noise schedule, of images and of embeddings.
        prediction: What the denoiser predicts of an image.
        patch_size: Latent pixels a side of one token.
        gamma: Scale of an embedding beside its noise, above 0 up to 1.
        is_diffused: Denoise the embedding; otherwise a learned constant stands for it (the control without diffusion).
        generation_weight: Weight of the images' loss; 0 for discrimination alone.
        alignment_weight: lambda, weight of the contrastive loss; 0 for generation alone.
        drop_caption: Share of training samples drawn without their caption, for guidance.
        drop_image: Share of training samples recognised without their image, for guidance.
        pure_share: Share of training samples whose embedding is all noise, where recognition starts; the other times
            are uniform.
        num_earlier: Captions of earlier batches that training compares images with as well; 0 for the batch's alone.
        alignment_rate: Learning rate of what only discrimination uses, as a multiple of the optimizer's (10 in a
            finetuning as the paper's).
        sampler: Sampler step of images.
        steps: Sampling steps of images.
        guidance: Classifier-free guidance by the caption, 1 + w: 1 follows the model.
        alignment_steps: Denoising steps of embeddings.
        alignment_guidance: Guidance by the image, 1 + w.
        num_draws: Noises that an image's embedding is averaged over.
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training and sampling.
    """

    def __init__(
        self,
        spec: DataSpec,
        codec: Callable[[DataSpec], LatentCodec],
        tower: Callable[[DataSpec], TextTower],
        conditioner: Callable[[int, int], TowerConditioner],
        denoiser: Callable[[tuple[int, int], int, int, int | None, int | None, int], Denoiser],
        head: Callable[[int, int, Direction], AlignmentHead],
        schedule: NoiseSchedule,
        prediction: PredictionKind = "velocity",
        patch_size: int = 1,
        gamma: float = 1.0,
        is_diffused: bool = True,
        generation_weight: float = 1.0,
        alignment_weight: float = 1.0,
        drop_caption: float = 0.1,
        drop_image: float = 0.1,
        pure_share: float = 0.0,
        num_earlier: int = 0,
        alignment_rate: float = 1.0,
        sampler: Sampler = "ddim",
        steps: int = 50,
        guidance: float = 1.0,
        alignment_steps: int = 1,
        alignment_guidance: float = 1.0,
        num_draws: int = 1,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        check_weights(generation_weight, alignment_weight, alignment_rate)
        check_numbers(guidance=guidance, alignment_guidance=alignment_guidance)
        check_unit_shares(drop_caption=drop_caption, drop_image=drop_image, pure_share=pure_share)
        drawable = ("image",) if generation_weight > 0 else ()
        super().__init__(optimizer, warmup_steps, seed, givable=("caption",), drawable=drawable)
        self.save_hyperparameters(logger=False)
        self.generation_weight, self.alignment_weight = generation_weight, alignment_weight
        self.drop_caption, self.alignment_rate, self.patch_size = drop_caption, alignment_rate, patch_size
        self.sampler: Sampler = sampler
        self.steps, self.guidance = steps, guidance
        self.alignment_steps, self.alignment_guidance, self.num_draws = alignment_steps, alignment_guidance, num_draws

        self.codec, self.tower = codec(spec), tower(spec)
        self.image, latent, width = self.codec.image, self.codec.latent, self.tower.summary_width
        if patch_size < 1 or latent.size % patch_size:
            raise ValueError(f"patch_size is {patch_size}: expected a divisor of the latent size, {latent.size}")
        self.diffusion = GaussianDiffusion(schedule, prediction)
        self.diffusion.step_times(steps)
        self.diffusion.step_times(alignment_steps)
        side, channels = latent.size // patch_size, latent.channels * patch_size**2
        self.conditioner = conditioner(self.tower.width, self.tower.max_tokens)
        widths = (self.conditioner.width, self.conditioner.context_width, width)
        self.denoiser = denoiser((side, side), channels, channels, *widths)
        assert self.denoiser.stream is not None
        self.direction = self.denoiser.stream.direction
        reader = head(width, self.denoiser.tap_widths["mid"], self.direction)
        self.query = TextQuery(reader, width, schedule, gamma, is_diffused, drop_image, pure_share, num_earlier)
        self.freeze_unused()

    # Training: Algorithm 1 -------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """L = L_IG + lambda L_ITA on the same batch, two passes (arXiv 2308.09306, Algorithm 1).

        The two tasks draw from streams of their own: one switched off leaves the other's noise as it is.
        """
        captions = batch["caption"]
        assert isinstance(captions, list)
        seeds = torch.randint(2**31, (3,), generator=generator, device=generator.device).tolist()
        first, drawing, recognising = (torch.Generator(self.device).manual_seed(seed) for seed in seeds)
        text = Text(**self.tower.of(batch))
        latent = self.codec.latents(batch, first if self.training else None)

        terms: dict[str, Tensor] = {}
        if self.generation_weight > 0:
            terms["generation"] = self.generation_loss(latent, text, drawing)
        if self.alignment_weight > 0:
            terms |= self.query.losses(self.look, latent, text, captions, recognising)
        return self.summed(terms)

    def weighed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """L_IG and lambda L_ITA, as far as they are trained; see `Method`."""
        weights = {"generation": self.generation_weight, "alignment": self.alignment_weight}
        return {name: weight * terms[name] for name, weight in weights.items() if weight > 0}

    def generation_loss(self, latent: Image, text: Text, generator: torch.Generator) -> Float[Tensor, ""]:
        """L_IG: mean squared error of the prediction at z_t; the text stream is not run (arXiv 2308.09306, Sec. 3).

        Args:
            latent: z.
            text: The captions.
            generator: Source of time, noise and dropping.
        """
        size, device = len(latent), latent.device
        time = torch.randint(1, self.diffusion.num_steps + 1, (size,), generator=generator, device=device)
        noise = torch.randn(latent.shape, generator=generator, device=device)
        is_dropped = torch.rand(size, generator=generator, device=device) < self.drop_caption
        noisy = self.diffusion.corrupt(latent, time, noise)
        prediction = self.denoise(noisy, time, self.conditioner(known(text), is_dropped))
        return (prediction - self.diffusion.target(latent, time, noise)).square().mean()

    def denoise(self, noisy: Image, time: Times, condition: Condition) -> Image:
        """Call the network on noisy latents: its prediction, float32.

        Args:
            noisy: z_t.
            time: t, 1 to T.
            condition: The captions.
        """
        denoised = self.denoiser(patchify(noisy, self.patch_size), time / self.diffusion.num_steps, condition)
        return unpatchify(denoised.prediction, self.patch_size).float()

    # The text query --------------------------------------------------------------------------------------------

    def look(self, latent: Image) -> Look:
        """Look at clean images, t_z = 0, with no caption.

        Args:
            latent: z.
        """
        tokens, null = patchify(latent, self.patch_size), self.conditioner.null(len(latent))
        return look(self.denoiser, self.query.head, tokens, null)

    @torch.no_grad()
    def encode_image(
        self,
        batch: Batch,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        num_draws: int | None = None,
    ) -> Embeddings:
        """Denoise embeddings from pure noise, given images (arXiv 2308.09306, Algorithm 3); see `Recognition`."""
        guidance, num_draws = self.check_recognition(guidance), self.num_draws if num_draws is None else num_draws
        if num_draws < 1:
            raise ValueError(f"num_draws is {num_draws}: expected at least 1")
        image = batch["image"]
        assert isinstance(image, Tensor)
        index = batch.get("index", torch.arange(len(image)))
        assert isinstance(index, Tensor)
        noise = SampleNoise(self.seed, index.tolist(), self.device)
        latent = self.codec.encode(image.to(self.device))
        images = [self.look(latent), *([self.look(torch.zeros_like(latent))] if guidance != 1 else [])]
        steps = self.alignment_steps if steps is None else steps
        total = torch.zeros(len(image), self.query.width, device=self.device)
        for _ in range(num_draws):
            total += self.query.denoise(noise.normal((self.query.width,)), steps, images, guidance)
        return F.normalize(total, dim=-1)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """The tower's embeddings; see `Recognition`."""
        check_texts(captions, "captions")
        return self.tower(captions).summary

    @property
    def inverse_temperature(self) -> float:
        """Learned scale; see `Recognition`."""
        return float(self.query.scale.detach())

    # Sampling: Algorithm 2 -------------------------------------------------------------------------------------

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
        """Draw images, for `caption` or from nothing; see `Method` (arXiv 2308.09306, Algorithm 2).

        Raises:
            ValueError: if a caption or `steps` is out of range, captions and seeds differ in number, or the model was
                not trained for what is asked.
        """
        self.check_request(condition, drawn, guidance)
        check_counts(condition, len(seeds))
        guidance = self.guidance if guidance is None else guidance
        null = self.conditioner.null(len(seeds))
        captions = condition.get("caption")
        caption = None if captions is None else self.conditioner(known(self.tower(list(captions))))
        noise = SampleNoise(self.seed, seeds, self.device)
        latent = self.codec.latent
        shape = (latent.channels, latent.size, latent.size)

        def predict(noisy: Image, time: Times) -> Image:
            prediction = self.denoise(noisy, time, null if caption is None else caption)
            if caption is None or guidance == 1:
                return prediction
            alone = self.denoise(noisy, time, null)
            return alone + guidance * (prediction - alone)

        noisy = noise.normal(shape)
        for t, s in pairwise(self.diffusion.step_times(self.steps if steps is None else steps)):
            time, target = (torch.full((len(seeds),), x, device=self.device) for x in (t, s))
            fresh = noise.normal(shape) if self.sampler == "ddpm" else None
            noisy = self.diffusion.step(
                predict, noisy, time, target, sampler=self.sampler, noise=fresh, clip=self.codec.clip
            )
        return {**condition, "image": self.codec.decode(noisy), "index": torch.tensor(seeds, device=self.device)}

    # Requests and parameters -----------------------------------------------------------------------------------

    def check_request(
        self,
        given: Collection[str],
        drawn: Sequence[str] | None,
        guidance: float | None = None,
    ) -> None:
        """Check that training covers a request for images; see `Method`."""
        super().check_request(given, drawn, guidance)
        check_trained(self.generation_weight, "generation_weight", "drawing images")
        if not given or (self.guidance if guidance is None else guidance) != 1:
            check_trained(self.drop_caption, "drop_caption", "guidance and for giving nothing")

    def check_recognition(self, guidance: float | None) -> float:
        """Check a request for embeddings, and say which guidance holds; see `Recognition`."""
        guidance = self.alignment_guidance if guidance is None else guidance
        check_numbers(guidance=guidance)
        check_trained(self.alignment_weight, "alignment_weight", "recognising images")
        if guidance != 1:
            check_trained(self.query.drop_image, "drop_image", "guidance by the image")
        return guidance

    def check_batch(self, size: int) -> None:
        """Check that a batch has negatives; see `Method`."""
        if self.alignment_weight > 0:
            check_pairs(size)

    def protocol(self) -> dict[str, Any]:
        """How samples are drawn and images recognised."""
        names = ("sampler", "steps", "guidance", "alignment_steps", "alignment_guidance", "num_draws", "seed")
        return {name: getattr(self, name) for name in names} | {"direction": self.direction, "gamma": self.query.gamma}

    def freeze_unused(self) -> None:
        """Switch off the parameters that no loss reaches, so that processes need not search for them."""
        unused: list[nn.Parameter] = []
        if self.alignment_weight == 0:
            unused = self.alignment_parameters()
        if self.generation_weight == 0:
            named = self.conditioner.named_parameters()
            unused = [parameter for name, parameter in named if not name.startswith("null_")]
            unused += self.denoiser.parameters_behind_middle()
        for parameter in unused:
            parameter.requires_grad_(False)

    def alignment_parameters(self) -> list[nn.Parameter]:
        """What only discrimination uses, by the modules it is in."""
        assert self.denoiser.stream is not None
        return [*self.denoiser.stream.parameters(), *self.query.parameters()]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Discrimination's own, and the rest."""
        own = {id(parameter) for parameter in self.alignment_parameters()}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            ParameterGroup([p for p in trained if id(p) not in own], 1.0),
            ParameterGroup([p for p in trained if id(p) in own], self.alignment_rate),
        ]
        return [group for group in groups if group.parameters]


def known(text: Text) -> Batch:
    """What the conditioner reads of captions."""
    return {"caption_tokens": text.tokens, "caption_mask": text.mask}
