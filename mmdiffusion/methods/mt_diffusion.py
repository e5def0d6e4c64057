"""MT-Diffusion: several modalities in one diffusion space (Chen et al., ICLR 2024, arXiv 2407.17571).

The joint image-label setting. The image is diffused; the label's encoding is aggregated into the mean on the way and
read back by a head. A label has three states, and the network is told which:

    hidden   aggregated into z_t, not shown: the paper's network U, draws image and label together
    shown    aggregated and given to the network: its network X, draws an image for a label
    absent   nowhere: plain diffusion and a noisy-image classifier without a leak
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.diffusion.aggregated import AggregatedDiffusion
from mmdiffusion.diffusion.gaussian import Encodings, PredictionKind, Sampler
from mmdiffusion.diffusion.schedules import DriftSchedule, NoiseSchedule
from mmdiffusion.losses import mean_where
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.checks import (
    check_counts,
    check_request,
    check_shares,
    check_times,
    check_trained,
    image_and_label,
)
from mmdiffusion.nn.conditioners import LabelConditioner
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.modalities import HeadShape, Image, LabelHead, LabelTable, Logits, patchify, unpatchify
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import Batch, Condition, DataSpec

Times = Int[Tensor, " b"]


class MTDiffusion(Method):
    """Joint diffusion of an image and its label.

    Args:
        spec: The data's modalities; linked from the data module.
        denoiser: Denoiser, all but its grid, channels and widths of conditions.
        schedule: Noise schedule.
        drift: How the label's encoding is aggregated.
        label_head: Head that reads the label.
        prediction: What the denoiser predicts of the drift-free state.
        patch_size: Pixels a side of one token.
        label_scale: Root mean square of a label's encoding, relative to images in [-1, 1].
        label_weight: lambda, weight of the label's cross-entropy (0.1 in the paper).
        absent_share: Share of training samples whose label is neither aggregated nor shown.
        shown_share: Share of training samples whose label is aggregated and shown; the rest have it hidden.
        sampler: Sampler step.
        steps: Sampling steps, at most the schedule's.
        guidance: Classifier-free guidance of a given label: 1 follows the model, 0 ignores the label.
        head_guidance: Guidance of a given label by the gradient of the model's own head.
        classify_times: t / T of the noisy states that `classify` averages over, in (0, 1].
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training and sampling.
    """

    def __init__(
        self,
        spec: DataSpec,
        denoiser: Callable[[tuple[int, int], int, int, int | None, int | None, None], Denoiser],
        schedule: NoiseSchedule,
        drift: DriftSchedule,
        label_head: Callable[[HeadShape], LabelHead],
        prediction: PredictionKind = "velocity",
        patch_size: int = 1,
        label_scale: float = 0.5,
        label_weight: float = 0.1,
        absent_share: float = 0.2,
        shown_share: float = 0.2,
        sampler: Sampler = "ddim",
        steps: int = 50,
        guidance: float = 1.0,
        head_guidance: float = 0.0,
        classify_times: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.25),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        is_shown, is_hidden = shown_share > 0, absent_share + shown_share < 1 - 1e-6
        drawable = ("image", "label") if is_hidden else ("image",)
        super().__init__(optimizer, warmup_steps, seed, givable=("label",) if is_shown else (), drawable=drawable)
        self.save_hyperparameters(logger=False)
        image, label = image_and_label(spec)
        check_shares(absent_share, shown_share, label_weight)
        check_times(classify_times)
        if patch_size < 1 or image.size % patch_size:
            raise ValueError(f"patch_size is {patch_size}: expected a divisor of the image size, {image.size}")
        self.image, self.label, self.patch_size = image, label, patch_size
        self.label_weight, self.absent_share, self.shown_share = label_weight, absent_share, shown_share
        self.sampler: Sampler = sampler
        self.steps, self.guidance, self.head_guidance = steps, guidance, head_guidance

        self.diffusion = AggregatedDiffusion(schedule, {"label": drift}, prediction)
        self.diffusion.step_times(steps)
        self.classify_steps = [max(1, round(time * schedule.num_steps)) for time in classify_times]

        shape = (image.channels, image.size, image.size)
        grid = (image.size // patch_size, image.size // patch_size)
        channels = image.channels * patch_size**2
        self.conditioner = LabelConditioner(spec)
        widths = (self.conditioner.width, self.conditioner.context_width, None)
        self.denoiser = denoiser(grid, channels, channels, *widths)
        self.label_encoder = LabelTable(label.num_classes, shape, label_scale)
        self.label_head = label_head(HeadShape(self.denoiser.tap_widths, shape, label.num_classes))

    # Training: Algorithm 1 -------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """L = MSE + lambda CE, one t per sample (arXiv 2407.17571, Sec. 3; modality dropout is ours).

        The label's cross-entropy counts where the network was not shown it, and is logged apart where it is nowhere.
        """
        image, label = self.read(batch)
        size, device = len(image), image.device
        time = torch.randint(1, self.diffusion.num_steps + 1, (size,), generator=generator, device=device)
        noise = torch.randn(image.shape, generator=generator, device=device)
        state = torch.rand(size, generator=generator, device=device)
        is_absent, is_shown = state < self.absent_share, state >= 1 - self.shown_share

        encodings = {"label": self.label_encoder(label) * ~is_absent[:, None, None, None]}
        noisy = self.diffusion.corrupt(image, time, noise, encodings)
        prediction, logits = self.denoise(noisy, time, self.conditioner.mixed(label, is_shown, is_absent))

        squared = (prediction - self.diffusion.target(image, time, noise)).square().flatten(1).mean(1)
        entropy = F.cross_entropy(logits, label, reduction="none")
        terms = {"mse": squared.mean(), "label": mean_where(entropy, ~is_shown)}
        terms["label_absent"] = mean_where(entropy, is_absent)
        return {"loss": terms["mse"] + self.label_weight * terms["label"]} | terms

    def denoise(self, noisy: Image, time: Times, condition: Condition) -> tuple[Image, Logits]:
        """Call the network: its prediction at z_t and the label's logits, both float32.

        Args:
            noisy: z_t.
            time: t, 1 to T.
            condition: State of the label.
        """
        share = time / self.diffusion.num_steps
        denoised = self.denoiser(patchify(noisy, self.patch_size), share, condition)
        prediction = unpatchify(denoised.prediction, self.patch_size).float()
        return prediction, self.label_head(denoised, prediction, share).float()

    # Sampling: Algorithm 2 -------------------------------------------------------------------------------------

    @torch.inference_mode(False)  # head guidance takes gradients
    @torch.no_grad()
    def sample(
        self,
        condition: Batch,
        *,
        seeds: Sequence[int],
        drawn: Sequence[str] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        head_guidance: float | None = None,
    ) -> Batch:
        """Draw images: for given labels, together with labels, or alone.

        Args:
            condition: `label` (b) when it is known; empty when nothing is given.
            seeds: One number per sample, usually its index.
            drawn: `["image"]` for the image alone (unconditional); `None` draws a label with it, unless it is given or
                the model was trained without.
            steps: Sampling steps, 1 to T; `None` takes the method's own.
            guidance: Classifier-free guidance of a given label; `None` takes the method's own.
            head_guidance: Guidance of a given label by the model's own head; `None` takes the method's own.

        Returns:
            `image` (b c h w, in [-1, 1]), `index` (b), and `label` (b) unless the image was drawn alone.

        Raises:
            ValueError: if a label or `steps` is outside its range, labels and seeds differ in number, or the model was
                not trained for what is given, drawn or guided.
        """
        self.check_sampling(condition, drawn, guidance, head_guidance)
        label = self.given_label(condition, len(seeds))
        noise = SampleNoise(self.seed, seeds, self.device)
        shape = (self.image.channels, self.image.size, self.image.size)
        times = self.diffusion.step_times(self.steps if steps is None else steps)
        labels: Batch = {}

        def joint(noisy: Image, time: Times) -> tuple[Image, Encodings]:
            prediction, logits = self.denoise(noisy, time, self.conditioner.hidden(len(seeds)))
            labels["label"] = logits.argmax(1)
            return prediction, {"label": self.label_encoder.expectation(logits.softmax(1))}

        def alone(noisy: Image, time: Times) -> tuple[Image, Encodings]:
            return self.denoise(noisy, time, self.conditioner.null(len(seeds)))[0], {}

        predict = joint if "label" in (self.drawable if drawn is None else drawn) else alone
        if label is not None:
            predict = self.conditional(label, guidance, head_guidance)
            labels["label"] = label
        noisy = noise.normal(shape)
        for t, s in pairwise(times):
            time, target = (torch.full((len(seeds),), x, device=self.device) for x in (t, s))
            fresh = noise.normal(shape) if self.sampler == "ddpm" else None
            noisy = self.diffusion.step(predict, noisy, time, target, sampler=self.sampler, noise=fresh, clip=1.0)
        return labels | {"image": noisy, "index": torch.tensor(seeds, device=self.device)}

    def conditional(
        self,
        label: Int[Tensor, " b"],
        guidance: float | None = None,
        head_guidance: float | None = None,
    ) -> Callable[[Image, Times], tuple[Image, Encodings]]:
        """Prediction for given labels, guided in drift-free coordinates, where the process is plain DDPM.

        There the unconditional network and its head know nothing of the label, so classifier-free guidance (Ho &
        Salimans 2022, Eq. 6, arXiv 2207.12598) and head guidance (classifier guidance, Dhariwal & Nichol 2021,
        Eq. 14, arXiv 2105.05233) keep their usual meaning. Guidance 1 and head guidance 0 is the model's own
        conditional; guidance 0 and head guidance 1 is the unconditional one turned by Bayes' rule.

        Args:
            label: Given labels.
            guidance: Weight of the shown label; `None` takes the method's own.
            head_guidance: Weight of the head's gradient; `None` takes the method's own.
        """
        guidance = self.guidance if guidance is None else guidance
        head_guidance = self.head_guidance if head_guidance is None else head_guidance
        encodings = {"label": self.label_encoder(label)}

        def predict(noisy: Image, time: Times) -> tuple[Image, Encodings]:
            shown, _ = self.denoise(noisy, time, self.conditioner({"label": label}))
            if guidance == 1 and head_guidance == 0:
                return shown, encodings
            free = self.diffusion.drift_free(noisy, time, encodings)
            alone, gradient = self.alone_with_gradient(free, time, label, needs_gradient=head_guidance != 0)
            guided = alone + guidance * (shown - alone)
            return self.diffusion.add_score(guided, time, head_guidance * gradient), encodings

        return predict

    def alone_with_gradient(
        self,
        free: Image,
        time: Times,
        label: Int[Tensor, " b"],
        needs_gradient: bool,
    ) -> tuple[Image, Image]:
        """The label-free prediction at a drift-free state, and the gradient of the head's log-probability there."""
        condition = self.conditioner.null(len(free))
        if not needs_gradient:
            return self.denoise(free, time, condition)[0], torch.zeros_like(free)
        with torch.enable_grad():
            free = free.detach().requires_grad_()
            prediction, logits = self.denoise(free, time, condition)
            chosen = logits.log_softmax(1).gather(1, label[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, free)
        return prediction.detach(), gradient

    # Discrimination --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def classify(self, batch: Batch) -> Float[Tensor, "b k"]:
        """Class probabilities of images: the head's, averaged over noisy states, with the label absent everywhere.

        Args:
            batch: `image` (b c h w), and `index` (b), which seeds the noise. A `label` is not read.

        Raises:
            ValueError: if the model was not trained for it.
        """
        check_trained(self.absent_share, "absent_share", "classify")
        check_trained(self.label_weight, "label_weight", "a head that classifies")
        image, index = batch["image"], batch["index"]
        assert isinstance(image, Tensor)
        assert isinstance(index, Tensor)
        noise = SampleNoise(self.seed, index.tolist(), self.device)
        image, condition = image.to(self.device), self.conditioner.null(len(image))
        total = torch.zeros(len(image), self.label.num_classes, device=self.device)
        for t in self.classify_steps:
            time = torch.full((len(image),), t, device=self.device)
            noisy = self.diffusion.corrupt(image, time, noise.normal(tuple(image.shape[1:])))
            total += self.denoise(noisy, time, condition)[1].softmax(1)
        return total / len(self.classify_steps)

    # Requests --------------------------------------------------------------------------------------------------

    def protocol(self) -> dict[str, Any]:
        """How samples are drawn and images classified."""
        names = ("sampler", "steps", "guidance", "head_guidance", "seed")
        return {name: getattr(self, name) for name in names} | {"classify_steps": list(self.classify_steps)}

    def check_sampling(
        self,
        condition: Batch,
        drawn: Sequence[str] | None,
        guidance: float | None,
        head_guidance: float | None,
    ) -> None:
        """Check that the network was trained in the states that a request needs."""
        asked = guidance if head_guidance is None else head_guidance
        check_request(condition, drawn, asked, givable=self.givable, drawable=self.drawable)
        if drawn and "image" not in drawn:
            raise ValueError(f"drawn is {list(drawn)}: expected image among them, labels are drawn with images")
        guided = (
            self.guidance if guidance is None else guidance,
            self.head_guidance if head_guidance is None else head_guidance,
        )
        if condition and guided != (1, 0):
            check_trained(self.absent_share, "absent_share", "guidance")
        if not condition and "label" not in (self.drawable if drawn is None else drawn):
            check_trained(self.absent_share, "absent_share", "drawing images alone")

    # Batches ---------------------------------------------------------------------------------------------------

    def read(self, batch: Batch) -> tuple[Image, Int[Tensor, " b"]]:
        """Image and label of a training batch."""
        image, label = batch["image"], batch["label"]
        assert isinstance(image, Tensor)
        assert isinstance(label, Tensor)
        return image, label

    def given_label(self, condition: Batch, num_samples: int) -> Int[Tensor, " b"] | None:
        """The known label of a condition, checked.

        Raises:
            ValueError: if its number or a value is out of range.
        """
        label = condition.get("label")
        if label is None:
            return None
        assert isinstance(label, Tensor)
        check_counts({"label": label}, num_samples)
        outside = label[(label < 0) | (label >= self.label.num_classes)]
        if len(outside):
            raise ValueError(f"label is {int(outside[0])}: expected 0 to {self.label.num_classes - 1}")
        return label.to(self.device).clone()  # outside inference mode, where the caller may be
