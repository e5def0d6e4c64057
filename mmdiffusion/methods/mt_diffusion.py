"""MT-Diffusion: several modalities in one diffusion space (Chen et al., ICLR 2024, arXiv 2407.17571).

The image is diffused; the encodings of extra modalities are aggregated into the mean on the way and read back by heads.
Each extra has three states, and the network is told which:

    hidden   aggregated into z_t, not shown: the paper's network U, draws the image and the extra together
    shown    aggregated and given to the network: its network X, draws an image for a known extra
    absent   nowhere: plain diffusion, and a noisy-image classifier without a leak
"""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mmdiffusion.codecs.latents import LatentCodec, Latents, Pixels
from mmdiffusion.diffusion.aggregated import AggregatedDiffusion
from mmdiffusion.diffusion.gaussian import PredictionKind, Sampler
from mmdiffusion.diffusion.schedules import NoiseSchedule
from mmdiffusion.losses import mean_where
from mmdiffusion.masks import paste
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.checks import check_entries, check_times
from mmdiffusion.methods.extras import Extra, ExtraModality, check_used
from mmdiffusion.methods.joint_network import JointNetwork
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import Asked, check_joint, known_values
from mmdiffusion.methods.space import State
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.encoders import Mean, Value
from mmdiffusion.nn.heads import mean_of
from mmdiffusion.nn.modalities import Image
from mmdiffusion.nn.states import Told
from mmdiffusion.nn.table_encoders import BackboneEncoder
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import Batch, DataSpec, MaskedSpec

Times = Int[Tensor, " b"]
Encoded = dict[str, State]


class MTDiffusion(Method):
    """Joint diffusion of an image and extra modalities; without any, plain diffusion.

    A training batch may lack the entry of an extra: it is absent for all of its samples then, and its loss is zero.

    Args:
        spec: The data's modalities; linked from the data module.
        denoiser: Denoiser, all but its grid, channels and widths of conditions.
        schedule: Noise schedule.
        extras: Extra modalities by their name in a batch.
        codec: First stage of the images; frozen.
        prediction: What the denoiser predicts of the drift-free state.
        patch_size: Latent pixels a side of one token.
        image_weight: Weight of the image's own loss; 0 trains the heads alone, which then read images and draw none.
        uncertainty: Weigh each extra's loss by a learned uncertainty as well (Kendall et al. 2018, arXiv 1705.07115).
        sampler: Sampler step.
        steps: Sampling steps, at most the schedule's.
        guidance: Classifier-free guidance of what is given: 1 follows the model, 0 ignores it.
        head_guidance: Guidance of what is given by the gradient of the model's own heads.
        representation_guidance: Guidance of the image by extras that are drawn with it in channels or a token of their
            own: 1 follows the model.
        paste_known: Put back what could be seen of a masked image.
        read_times: t / T of the noisy states at which a known image is read, in (0, 1].
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training and sampling.
    """

    def __init__(
        self,
        spec: DataSpec,
        denoiser: Callable[[tuple[int, int], int, int, int | None, int | None, int | None], Denoiser],
        schedule: NoiseSchedule,
        extras: dict[str, Extra] = {},  # noqa: B006 - read only, and `--help` shows it
        codec: Callable[[DataSpec], LatentCodec] = Pixels,
        prediction: PredictionKind = "velocity",
        patch_size: int = 1,
        image_weight: float = 1.0,
        uncertainty: bool = False,
        sampler: Sampler = "ddim",
        steps: int = 50,
        guidance: float = 1.0,
        head_guidance: float = 0.0,
        representation_guidance: float = 1.0,
        paste_known: bool = False,
        read_times: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.25),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        coded = codec(spec)
        shape = (coded.latent.channels, coded.latent.size, coded.latent.size)
        made = [ExtraModality(name, spec, extra, shape) for name, extra in extras.items()]
        readable = [extra.name for extra in made if extra.weight > 0 and extra.absent_share > 0]
        givable = (*(["image"] if readable else []), *(extra.name for extra in made if extra.shown_share > 0))
        joint = ("image", *(extra.name for extra in made if extra.is_hidden_at_times and extra.weight > 0))
        joint = joint if image_weight > 0 else ()
        drawable = (*joint, *(name for name in readable if name not in joint))
        super().__init__(optimizer, warmup_steps, seed, givable=givable, drawable=drawable, makes=joint)
        self.save_hyperparameters(logger=False)
        check_times(read_times)
        Asked(None, guidance, head_guidance, representation_guidance).check()
        check_used(made, image_weight=image_weight, uncertainty=uncertainty, paste_known=paste_known)
        self.codec, self.image = coded, coded.image
        self.image_weight, self.paste_known, self.readable = image_weight, paste_known, tuple(readable)
        self.sampler: Sampler = sampler
        self.steps, self.guidance, self.head_guidance = steps, guidance, head_guidance
        self.representation_guidance = representation_guidance

        self.diffusion = AggregatedDiffusion(schedule, {n: extra.drift for n, extra in extras.items()}, prediction)
        self.diffusion.step_times(steps)
        self.read_steps = [max(1, round(time * schedule.num_steps)) for time in read_times]
        heads = {name: extra.head for name, extra in extras.items()}
        self.network = JointNetwork(shape, patch_size, schedule.num_steps, made, denoiser, heads)
        self.space, self.each, self.extra = self.network.space, self.network.each, self.network.extra
        self.log_variance = nn.ParameterDict({n: nn.Parameter(torch.zeros(())) for n in extras if uncertainty})

    # Training: Algorithm 1 -------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """L = MSE + sum_i lambda_i L_i, one t per sample (arXiv 2407.17571, Sec. 3; modality dropout is ours).

        An extra's loss counts where the network was not shown it, and is logged apart where it is nowhere. An extra
        which the batch lacks has none, and gradients of zero: every process has gradients of all weights.

        Raises:
            ValueError: if the batch has no image, or in validation lacks an extra.
        """
        if not self.training:
            self.check_whole(batch, "validation, which compares batches and steps")
        image = self.codec.latents(batch, generator if self.training else None)
        size, device, clean = len(image), image.device, self.space.lift(image)
        time = torch.randint(1, self.diffusion.num_steps + 1, (size,), generator=generator, device=device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        encodings: Encoded = {}
        values: dict[str, Value] = {}
        told: list[Told] = []
        states = {}
        for extra in self.each():
            is_shown, is_absent = states[extra.name] = extra.draw_states(batch, size, generator)
            value = values[extra.name] = extra.read_batch(batch, size, generator)
            encoding = self.space.lift(extra.encode(value), extra)
            encodings[extra.name] = encoding * ~is_absent[:, None, None, None]
            told.append(extra.teller(value, is_shown, is_absent))

        noisy = self.diffusion.corrupt(clean, time, noise, encodings)
        prediction, outputs = self.network(noisy, time, told)
        channels = self.space.image_channels
        target = self.diffusion.target(image, time, noise[:, :channels])
        terms = {"mse": (prediction - target).square().flatten(1).mean(1).mean()}
        for extra in self.each():
            (is_shown, is_absent), each = states[extra.name], extra.loss(outputs[extra.name], values[extra.name])
            is_there = extra.is_in(batch)
            if is_there:
                terms[extra.name] = mean_where(each, ~is_shown)
                terms[f"{extra.name}_absent"] = mean_where(each, is_absent)
            else:  # every process has gradients of all weights
                terms["mse"] = terms["mse"] + 0 * self.weigh(extra, each.mean())
            if self.training:
                extra.remember(each.detach(), time / self.diffusion.num_steps, is_absent & is_there)
        return self.summed(terms)

    def weighed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """MSE and each extra's loss with their weights, zero where the batch lacks the extra; see `Method`."""
        nothing = torch.zeros_like(terms["mse"], requires_grad=False)
        parts = {e.name: self.weigh(e, terms[e.name]) if e.name in terms else nothing for e in self.each()}
        return {"mse": self.image_weight * terms["mse"]} | parts

    def check_whole(self, batch: Batch, purpose: str) -> None:
        """Check that a batch has all extras that are not made from its image.

        Raises:
            ValueError: naming those that it lacks.
        """
        check_entries(batch, [extra.name for extra in self.each() if not extra.is_in(batch)], purpose)

    def weigh(self, extra: ExtraModality, loss: Tensor) -> Tensor:
        """lambda_i L_i; with a learned uncertainty s, lambda_i (exp(-s) L_i + s) (Kendall et al. 2018, Eq. 7)."""
        if extra.name in self.log_variance:
            uncertainty = self.log_variance[extra.name]
            loss = torch.exp(-uncertainty) * loss + uncertainty
        return extra.weight * loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Ask the denoiser for the encodings that are its own."""
        for extra in self.each():
            if isinstance(extra.encoder, BackboneEncoder) and self.global_step % extra.encoder.every_n_steps == 0:
                self.network.ask_backbone(extra.name, extra.encoder)

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
        representation_guidance: float | None = None,
    ) -> Batch:
        """Draw what is not known: an image with or without extras, or what can be read off a known image.

        Args:
            condition: Known modalities; empty when nothing is given.
            seeds: One number per sample, usually its index.
            drawn: What to draw, such as `["image"]` for the image alone; `None` draws all that is not given and that
                training has hidden or, of a known image, all that its heads read.
            steps: Sampling steps, 1 to T; `None` takes the method's own.
            guidance: Classifier-free guidance of what is given; `None` takes the method's own.
            head_guidance: Guidance of what is given by the model's own heads; `None` takes the method's own.
            representation_guidance: Guidance by what is drawn beside the image; `None` takes the method's own.

        Returns:
            What is given, unchanged, what was drawn, and `index`.

        Raises:
            ValueError: if a value or `steps` is outside its range, values and seeds differ in number, a setting has no
                effect on what is drawn, or the model was not trained for what is given, drawn or guided.
        """
        asked = Asked(steps, guidance, head_guidance, representation_guidance)
        request = check_joint(self, condition, drawn, asked)
        known = known_values(self, condition, len(seeds))
        index = torch.tensor(seeds, device=self.device)
        if "image" in known:
            image = known.pop("image")
            means = self.read(image, known, request.drawn, index)
            made = {name: self.extra(name).value(mean) for name, mean in means.items()}
            return {**condition, **made, "index": index}
        noise = SampleNoise(self.seed, seeds, self.device)
        times = self.diffusion.step_times(request.steps)
        predict = JointPredictor(self, known, request, len(seeds))
        noisy = noise.normal(self.space.shape)
        for t, s in pairwise(times):
            time, target = (torch.full((len(seeds),), x, device=self.device) for x in (t, s))
            fresh = noise.normal(self.space.shape) if self.sampler == "ddpm" else None
            noisy = self.diffusion.step(
                predict, noisy, time, target, sampler=self.sampler, noise=fresh, clip=self.codec.clip
            )
        image = self.finish(noisy[:, : self.space.image_channels], known)
        return {**condition, **predict.last, "image": image, "index": index}

    def beside(self, names: Sequence[str]) -> list[str]:
        """Those of some extras that have channels or a token of their own beside the image's."""
        return [name for name in names if self.extra(name).encoder.own_channels]

    def finish(self, latent: Latents, known: dict[str, Tensor]) -> Image:
        """The image of a latent, with what could be seen of it put back where that is asked for."""
        image = self.codec.decode(latent)
        for name, value in known.items():
            if self.paste_known and isinstance(self.extra(name).spec, MaskedSpec):
                image = paste(image, value)
        return image

    # Reading known images --------------------------------------------------------------------------------------

    @torch.no_grad()
    def read(
        self,
        image: Image,
        known: dict[str, Tensor],
        names: Sequence[str],
        index: Int[Tensor, " b"],
    ) -> dict[str, Mean]:
        """Means of extras of known images: the heads', averaged over noisy states with these extras nowhere.

        Args:
            image: The images.
            known: Known extras, which the network is shown.
            names: Extras to read.
            index: Seeds the noise, one number a sample.
        """
        noise, clean = (
            SampleNoise(self.seed, index.tolist(), self.device),
            self.space.lift(self.codec.encode(image.to(self.device))),
        )
        encodings = self.network.encode(known)
        told = self.network.tell(known, (), len(image))
        total: dict[str, Mean] = {}
        for t in self.read_steps:
            time = torch.full((len(image),), t, device=self.device)
            noisy = self.diffusion.corrupt(clean, time, noise.normal(self.space.shape), encodings)
            outputs = self.network(noisy, time, told)[1]
            for name in names:
                total[name] = total.get(name, 0) + mean_of(outputs[name], self.extra(name).spec)
        return {name: mean / len(self.read_steps) for name, mean in total.items()}

    def classify(self, batch: Batch) -> Float[Tensor, "b k"]:
        """Class probabilities of images, with the label nowhere (see `read`).

        Args:
            batch: `image` (b c h w), and `index` (b), which seeds the noise. A `label` is not read.

        Raises:
            ValueError: if the model was not trained for it.
        """
        image, index = batch["image"], batch["index"]
        assert isinstance(image, Tensor)
        assert isinstance(index, Tensor)
        self.check_request(["image"], ["label"])
        return self.read(image, {}, ["label"], index)["label"]

    # Requests --------------------------------------------------------------------------------------------------

    def check_request(
        self,
        given: Collection[str],
        drawn: Sequence[str] | None,
        guidance: float | None = None,
    ) -> None:
        """Check that training covers the states that a request needs; see `Method`."""
        check_joint(self, given, drawn, Asked(guidance=guidance))

    @property
    def predicted_for(self) -> tuple[str, ...]:
        """Extras that can be given: an image is drawn for those of each sample."""
        return tuple(name for name in self.givable if name != "image")

    def protocol(self) -> dict[str, Any]:
        """How samples are drawn and images read."""
        names = ("sampler", "steps", "guidance", "head_guidance", "representation_guidance", "paste_known", "seed")
        return {name: getattr(self, name) for name in names} | {"read_steps": list(self.read_steps)}
