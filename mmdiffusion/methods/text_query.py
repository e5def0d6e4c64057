"""A caption's embedding as what is diffused, given an image: the discriminating half of DiffDis."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.codecs.text import Text
from mmdiffusion.diffusion.gaussian import Estimate, GaussianDiffusion
from mmdiffusion.diffusion.schedules import NoiseSchedule
from mmdiffusion.losses import mean_where
from mmdiffusion.methods.pairs import Compared, EarlierTexts, compare
from mmdiffusion.nn.alignment import AlignmentHead, Look
from mmdiffusion.nn.modalities import Image

Embeddings = Float[Tensor, "b d"]
Times = Int[Tensor, " b"]

LARGEST_SCALE = 100.0
NUM_QUARTERS = 4
"""Parts of the noise levels for which the accuracy of a batch is told apart."""


class TextQuery(nn.Module):
    """Diffusion of unit embeddings beside noise of unit variance (Huang et al. 2023, arXiv 2308.09306, Sec. 3).

    e_t = gamma sqrt(alpha_bar_t) e + sqrt(1 - alpha_bar_t) noise. A unit embedding is small beside its noise, and must
    be: a larger one would give itself away at nearly every time, and the image would not be looked at.

    Args:
        head: Reads the clean embedding behind the denoiser's middle.
        width: Width of an embedding.
        schedule: Noise schedule.
        gamma: Scale of the embedding, above 0 up to 1.
        is_diffused: Otherwise a learned constant stands for every noisy embedding: the control without diffusion.
        drop_image: Share of training samples recognised without their image, for guidance.
        pure_share: Share of training samples whose embedding is all noise; the other times are uniform.
        num_earlier: Captions of earlier batches that training compares images with as well; 0 for none.

    Raises:
        ValueError: if gamma is out of range.
    """

    def __init__(
        self,
        head: AlignmentHead,
        width: int,
        schedule: NoiseSchedule,
        gamma: float,
        is_diffused: bool,
        drop_image: float,
        pure_share: float,
        num_earlier: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma is {gamma}: expected above 0 up to 1; a larger one gives the caption away")
        self.head, self.width, self.gamma = head, width, gamma
        self.drop_image, self.pure_share = drop_image, pure_share
        self.earlier = EarlierTexts(num_earlier, width) if num_earlier else None
        self.diffusion = GaussianDiffusion(schedule, "clean")
        self.constant = None if is_diffused else nn.Parameter(torch.randn(width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Learned inverse temperature of the similarities, at most 100 (Radford et al. 2021, arXiv 2103.00020)."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    # Training --------------------------------------------------------------------------------------------------

    def losses(
        self,
        look: Callable[[Image], Look],
        latent: Image,
        text: Text,
        captions: Sequence[str],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """L_ITA: denoised embeddings against those of all captions (arXiv 2308.09306, Sec. 3), and what to watch.

        The share of embeddings nearest to their own caption, by quarter of the noise levels (the last is the noisiest);
        in validation also with images that are blank and of other samples: what remains, the noisy embedding gave away.

        Args:
            look: Looks at clean images.
            latent: Clean images.
            text: The captions, read.
            captions: The captions.
            generator: Source of time, noise and dropping.
        """
        size, device, num_steps = len(latent), latent.device, self.diffusion.num_steps
        time = torch.randint(1, num_steps + 1, (size,), generator=generator, device=device)
        is_pure = torch.rand(size, generator=generator, device=device) < self.pure_share
        time = torch.where(is_pure, num_steps, time)
        noise = torch.randn(text.summary.shape, generator=generator, device=device)
        noisy = self.corrupt(text.summary, time, noise)
        is_dropped = torch.rand(size, generator=generator, device=device) < self.drop_image

        def compared(images: Image, earlier: EarlierTexts | None = None) -> Compared:
            return compare(self.estimate(noisy, time, look(images)), text.summary, captions, self.scale, earlier)

        own = compared(latent * ~is_dropped[:, None, None, None], self.earlier if self.training else None)
        terms = {"alignment": own.loss.mean(), "same_captions": own.num_same.float().mean()}
        quarter = (time - 1) * NUM_QUARTERS // num_steps
        for i in range(NUM_QUARTERS):
            terms[f"accuracy_t{i + 1}"] = mean_where(own.is_right, (quarter == i) & ~is_dropped)
        if not self.training:
            terms["accuracy_blank"] = compared(torch.zeros_like(latent)).is_right.float().mean()
            terms["accuracy_shuffled"] = compared(latent.roll(1, 0)).is_right.float().mean()
        return terms

    def corrupt(self, embeddings: Embeddings, time: Times, noise: Embeddings) -> Embeddings:
        """Draw e_t given e.

        Args:
            embeddings: e, of length 1.
            time: t, 0 to T.
            noise: Standard normal numbers.
        """
        return self.diffusion.corrupt(self.gamma * embeddings, time, noise)

    # Denoising -------------------------------------------------------------------------------------------------

    def estimate(self, noisy: Embeddings, time: Times, images: Look) -> Embeddings:
        """Estimate clean embeddings, of length 1 and float32, from noisy ones and images.

        Args:
            noisy: e_t.
            time: t, 1 to T.
            images: Images that were looked at.
        """
        if self.constant is not None:
            noisy, time = self.constant.expand_as(noisy), torch.zeros_like(time)
        raw = images(noisy[:, None], time / self.diffusion.num_steps)
        return F.normalize(raw[:, 0].float(), dim=-1)

    def denoise(self, noisy: Embeddings, steps: int, images: Sequence[Look], guidance: float) -> Embeddings:
        """Clean embeddings from pure noise, by DDIM (arXiv 2308.09306, Algorithm 3; Song et al., arXiv 2010.02502).

        The step as it is restated lacks a factor 1 / sqrt(alpha_bar_t); with it, the state keeps its norm. Guided
        estimates have length 1 before they are combined, and their combination after.

        Args:
            noisy: e_T.
            steps: Steps, 1 to T.
            images: Images that were looked at; and blank ones, where guidance is not 1.
            guidance: 1 + w.
        """
        estimate = noisy
        for t, s in pairwise(self.diffusion.step_times(steps)):
            time, target = (torch.full((len(noisy),), x, device=noisy.device) for x in (t, s))
            estimate = self.estimate(noisy, time, images[0])
            if guidance != 1:
                nothing = self.estimate(noisy, time, images[1])
                estimate = F.normalize(nothing + guidance * (estimate - nothing), dim=-1)
            scaled = self.gamma * estimate
            fit = Estimate(scaled, self.diffusion.noise_between(noisy, scaled, time))
            noisy = self.diffusion.move(noisy, fit, time, target)
        return estimate
