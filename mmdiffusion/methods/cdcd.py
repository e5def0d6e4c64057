"""CDCD: conditional discrete contrastive diffusion (Zhu et al., ICLR 2023, arXiv 2206.07771).

Tokens of a modality (a picture, a piece of music) are masked and replaced step by step; the network names the clean
tokens from what is left and from a condition (a class, a dance). Beside the variational bound, contrastive terms ask
that the condition fits its own tokens better than others.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.diffusion.categorical import guide, temper, truncate
from mmdiffusion.diffusion.discrete import MaskReplaceDiffusion
from mmdiffusion.diffusion.discrete_bound import falling_weight
from mmdiffusion.diffusion.discrete_kl import Divergence
from mmdiffusion.diffusion.discrete_samplers import TokenSampler
from mmdiffusion.diffusion.discrete_schedules import TokenSchedule
from mmdiffusion.diffusion.importance import ImportanceTimes
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.checks import check_counts, check_sharpening, check_trained
from mmdiffusion.methods.contrast import Contrast, minus
from mmdiffusion.methods.negatives import Negatives
from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.numbers import check_number
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import Batch, Condition, DataSpec, LabelSpec

Tokens = Int[Tensor, "b l"]
Times = Int[Tensor, " b"]
LogProbs = Float[Tensor, "b l codes"]


class CDCD(Method):
    """Tokens of one modality, given others.

    Args:
        spec: The data's modalities; linked from the data module.
        codec: Tokens of the modality that is drawn.
        conditioner: What is known, as the denoiser reads it.
        denoiser: Denoiser, all but its grid, channels and widths of conditions.
        schedule: Schedule of masking and replacing.
        contrasts: Contrastive terms; none for plain discrete diffusion.
        auxiliary_weight: Weight of -log p(clean tokens | noisy ones) beside the bound (5e-4 in the paper).
        drop_share: Share of training samples whose condition is dropped, for guidance and relative contrasts.
        token_width: Width of a token's embedding.
        is_aligned: Context tokens and drawn tokens share one time grid: a token is also given the context token of its
            own time, beside the cross-attention.
        sampler: Step of the reverse chain.
        steps: Sampling steps, at most the schedule's.
        guidance: Classifier-free guidance: 1 follows the model, 0 ignores the condition.
        truncation: Share of the probability from which a token is drawn (0.86 in the paper); 1 keeps all.
        temperature: Of the prediction; below 1 sharpens.
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training and sampling.
    """

    def __init__(
        self,
        spec: DataSpec,
        codec: Callable[[DataSpec], TokenCodec],
        conditioner: Callable[[DataSpec], Conditioner],
        denoiser: Callable[[tuple[int, ...], int, int, int | None, int | None, None], Denoiser],
        schedule: TokenSchedule,
        sampler: TokenSampler,
        contrasts: Sequence[Contrast] = (),
        auxiliary_weight: float = 5e-4,
        drop_share: float = 0.1,
        token_width: int = 64,
        is_aligned: bool = False,
        steps: int = 50,
        guidance: float = 1.0,
        truncation: float = 1.0,
        temperature: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        if not 0 <= drop_share < 1:
            raise ValueError(f"drop_share is {drop_share}: expected 0 up to, but not including, 1")
        check_number("auxiliary_weight", auxiliary_weight, least=0)
        check_number("guidance", guidance)
        check_sharpening(truncation, temperature)
        encoder, tokens = conditioner(spec), codec(spec)
        makes = tuple(dict.fromkeys((tokens.source, tokens.result)))
        super().__init__(optimizer, warmup_steps, seed, givable=encoder.reads, drawable=makes[-1:], makes=makes)
        self.save_hyperparameters(logger=False)
        self.drop_share, self.auxiliary_weight = drop_share, auxiliary_weight
        groups = {name: part.num_classes for name, part in spec.items() if isinstance(part, LabelSpec)}
        self.group, self.num_groups = next(iter(groups.items()), (None, None))
        self.sampler, self.steps, self.guidance = sampler, steps, guidance
        self.truncation, self.temperature = truncation, temperature

        self.codec = tokens
        self.grid, num_codes = self.codec.latent.grid, self.codec.latent.num_codes
        self.diffusion = MaskReplaceDiffusion(schedule, num_codes)
        self.diffusion.step_times(steps)
        self.times = ImportanceTimes(schedule.num_steps)
        self.conditioner = encoder
        self.table = nn.Embedding(num_codes + 1, token_width)
        if is_aligned and encoder.context_width is None:
            raise ValueError("is_aligned is True: expected a conditioner with context tokens")
        width = encoder.context_width if is_aligned else None
        self.alignment = None if width is None else nn.Linear(width, token_width)
        length = torch.Size(self.grid).numel()
        if is_aligned:
            aligned(encoder.null(1), length)
        self.denoiser = denoiser(self.grid, token_width, num_codes, encoder.width, encoder.context_width, None)
        self.contrasts = list(contrasts)
        for contrast in contrasts:
            contrast.negatives.check(length, self.num_groups)
        self.negatives = nn.ModuleList(contrast.negatives for contrast in contrasts)  # their banks, in checkpoints

    # Training --------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """L = sum over t of KL + auxiliary + contrast, nats per token, from one importance-drawn t per sample.

        Gu et al. 2022, arXiv 2111.14822 (the bound and the auxiliary term); arXiv 2206.07771 (the contrast).
        """
        tokens = self.tokens(batch)
        size, length = tokens.shape
        time, probability = self.times.draw(size, generator)
        noise = torch.rand(size, 2, length, generator=generator, device=self.device, dtype=torch.float64)
        noisy = self.diffusion.corrupt(tokens, time, noise)
        is_dropped = torch.rand(size, generator=generator, device=self.device) < self.drop_share
        condition = self.conditioner(batch, is_dropped)

        group = None if self.group is None else batch[self.group]
        pairs = [(contrast, contrast.negatives(tokens, group, generator)) for contrast in self.contrasts]
        drawn = [(contrast, negatives) for contrast, negatives in pairs if negatives is not None]
        shared = [negatives.tokens for contrast, negatives in drawn if contrast.chain == "shared"]
        candidates = torch.cat([tokens[:, None], *shared], dim=1)
        judged = self.judge(noisy, candidates, time, condition)

        bound, clean = judged.kl[:, 0].sum(1), judged.nll[:, 0].sum(1)
        auxiliary = self.auxiliary_weight * falling_weight(time, self.diffusion.num_steps) * clean
        contrast = self.compare(drawn, judged, noisy, candidates, time, condition, generator) * ~is_dropped
        if self.training:
            self.times.update(time, bound.detach())
        total = (bound + auxiliary + contrast) / probability / length
        terms = {"bound": bound, "auxiliary": auxiliary, "contrast": contrast}
        means = {name: ((term / probability).mean() / length).float() for name, term in terms.items()}
        return {"loss": total.mean().float()} | means

    def log_probs(self, noisy: Tokens, time: Times, condition: Condition) -> LogProbs:
        """Call the network: log p(x_0 | x_t, c) over the codes, float32.

        Args:
            noisy: x_t.
            time: t, 1 to T.
            condition: What is known.
        """
        embedded = self.table(noisy)
        if self.alignment is not None:
            embedded = embedded + self.alignment(aligned(condition, noisy.shape[1]))
        embedded = embedded.unflatten(1, self.grid)
        denoised = self.denoiser(embedded, time / self.diffusion.num_steps, condition)
        assert denoised.prediction is not None
        return denoised.prediction.flatten(1, -2).float().log_softmax(-1)

    def check_batch(self, size: int) -> None:
        """Check that batches can give the negatives; see `Method`."""
        for contrast in self.contrasts:
            contrast.negatives.check_batch(size, self.num_groups or 1)

    def judge(self, noisy: Tokens, candidates: Int[Tensor, "b m l"], time: Times, condition: Condition) -> Divergence:
        """Losses of candidates for the clean tokens, all on one noisy state and one pass.

        Args:
            noisy: x_t.
            candidates: m sequences for each sample.
            time: t, 1 to T.
            condition: What is known.
        """
        return self.diffusion.divergence(self.log_probs(noisy, time, condition), noisy, candidates, time, time - 1)

    def compare(
        self,
        drawn: Sequence[tuple[Contrast, Negatives]],
        judged: Divergence,
        noisy: Tokens,
        candidates: Int[Tensor, "b m l"],
        time: Times,
        condition: Condition,
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        """Sum of the contrastive terms (arXiv 2206.07771).

        Args:
            drawn: Contrasts and their negatives.
            judged: Losses of the candidates.
            noisy: x_t.
            candidates: The truth, then the negatives of all shared chains.
            time: t, 1 to T.
            condition: What is known.
            generator: Source of the noise of own chains.
        """
        total, start = torch.zeros(len(noisy), device=self.device), 1
        for contrast, negatives in drawn:
            losses = judged
            if contrast.is_relative:
                losses = minus(judged, self.judge(noisy, candidates, time, self.conditioner.null(len(noisy))))
            flavoured = losses.kl if contrast.flavour == "step" else losses.nll
            positive = flavoured[:, 0]
            if contrast.chain == "shared":
                false = flavoured[:, start : start + negatives.tokens.shape[1]]
                start += negatives.tokens.shape[1]
            else:
                false = self.judge_on_own_chains(contrast, negatives.tokens, time, condition, generator)
            total = total + contrast(positive, false, negatives, time, self.diffusion.num_steps)
        return total

    def judge_on_own_chains(
        self,
        contrast: Contrast,
        tokens: Int[Tensor, "b n l"],
        time: Times,
        condition: Condition,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n l"]:
        """Losses of negatives, each on its own noisy state: n more passes, with the positive's t and condition.

        Args:
            contrast: Which losses are wanted.
            tokens: The negatives.
            time: t, 1 to T.
            condition: What is known.
            generator: Source of the noise.
        """
        size, count, length = tokens.shape
        clean, time = tokens.flatten(0, 1), time.repeat_interleave(count)
        noise = torch.rand(size * count, 2, length, generator=generator, device=self.device, dtype=torch.float64)
        noisy = self.diffusion.corrupt(clean, time, noise)
        repeated = Condition(*(part if part is None else part.repeat_interleave(count, 0) for part in condition))
        losses = self.judge(noisy, clean[:, None], time, repeated)
        if contrast.is_relative:
            losses = minus(losses, self.judge(noisy, clean[:, None], time, self.conditioner.null(len(noisy))))
        return (losses.kl if contrast.flavour == "step" else losses.nll).unflatten(0, (size, count))[:, :, 0]

    # Sampling --------------------------------------------------------------------------------------------------

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
        """Draw tokens from nothing but noise and the condition, and decode them.

        Args:
            condition: All that the conditioner reads, or nothing.
            seeds: One number per sample, usually its index.
            drawn: What the codec decodes to, or `None`.
            steps: Sampling steps, 1 to T; `None` takes the method's own.
            guidance: Classifier-free guidance; `None` takes the method's own.

        Returns:
            What the tokens stand for, the `tokens` (b *grid), what was given, and `index` (b).

        Raises:
            ValueError: if `steps` is out of range, or the model was not trained for what is asked.
        """
        self.check_request(condition, drawn, guidance)
        check_counts(condition, len(seeds))
        guidance = self.guidance if guidance is None else guidance
        known = None if not condition else self.conditioner(condition)
        null = self.conditioner.null(len(seeds))
        noise = SampleNoise(self.seed, seeds, self.device)
        length = torch.Size(self.grid).numel()
        times = self.diffusion.step_times(self.steps if steps is None else steps)

        noisy = self.diffusion.prior(noise.uniform((2, length)))
        for t, s in pairwise(times):
            time, target = (torch.full((len(seeds),), x, device=self.device) for x in (t, s))
            log_probs = self.log_probs(noisy, time, null if known is None else known)
            if known is not None and guidance != 1:
                log_probs = guide(log_probs, self.log_probs(noisy, time, null), guidance)
            log_probs = truncate(temper(log_probs, self.temperature), self.truncation)
            uniform = noise.uniform((self.sampler.num_uniforms, length))
            noisy = self.sampler(self.diffusion, log_probs, noisy, time, target, uniform)
        tokens = noisy.unflatten(1, self.grid)
        made: Batch = {self.codec.source: tokens, self.codec.result: self.codec.decode(tokens)}
        return {**condition, **made, "tokens": tokens, "index": torch.tensor(seeds, device=self.device)}

    def protocol(self) -> dict[str, Any]:
        """How samples are drawn."""
        names = ("steps", "guidance", "truncation", "temperature", "seed")
        return {name: getattr(self, name) for name in names} | {"sampler": type(self.sampler).__name__}

    def check_request(
        self,
        given: Collection[str],
        drawn: Sequence[str] | None,
        guidance: float | None = None,
    ) -> None:
        """Check that all or nothing is given, as in training; see `Method`."""
        super().check_request(given, drawn, guidance)
        missing = [name for name in self.givable if name not in given]
        if given and missing:
            raise ValueError(f"given lacks {', '.join(missing)}: expected all of {', '.join(self.givable)}, or nothing")
        if not given or (self.guidance if guidance is None else guidance) != 1:
            check_trained(self.drop_share, "drop_share", "guidance and for giving nothing")

    # Batches ---------------------------------------------------------------------------------------------------

    def tokens(self, batch: Batch) -> Tokens:
        """Tokens of what is drawn, in a row."""
        return self.codec.of(batch)["tokens"].flatten(1)


def aligned(condition: Condition, length: int) -> Float[Tensor, "b n d"]:
    """Context tokens on the time grid of the drawn ones.

    Raises:
        ValueError: if there are more of them, or fewer.
    """
    assert condition.tokens is not None
    if condition.tokens.shape[1] != length:
        raise ValueError(
            f"is_aligned is True with {condition.tokens.shape[1]} context tokens and {length} drawn ones: expected as "
            "many; change the conditioner's tokens_per_second, or is_aligned"
        )
    return condition.tokens
