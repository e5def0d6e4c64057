"""MT-Diffusion's prediction in sampling: told what is known, guided by it, and by what is drawn beside the image."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.diffusion.gaussian import at
from mmdiffusion.methods.joint_requests import JointRequest
from mmdiffusion.methods.space import State
from mmdiffusion.nn.encoders import Value
from mmdiffusion.nn.modalities import Image

if TYPE_CHECKING:
    from mmdiffusion.methods.mt_diffusion import MTDiffusion

Times = Int[Tensor, " b"]
Encoded = dict[str, State]


class JointPredictor:
    """Prediction for known extras, guided in drift-free coordinates, where the process is plain DDPM.

    There the unconditional network and its heads know nothing of what is given, so classifier-free guidance (Ho &
    Salimans 2022, Eq. 6, arXiv 2207.12598) and head guidance (classifier guidance, Dhariwal & Nichol 2021, Eq. 14,
    arXiv 2105.05233) keep their usual meaning. Guidance 1 and head guidance 0 is the model's own conditional; guidance
    0 and head guidance 1 is the unconditional one turned by Bayes' rule. Heads guide the image, not what is drawn
    with it.

    Representation guidance (Kouzelis et al. 2025, arXiv 2504.16064) moves the image away from what is predicted where
    the extras drawn beside it, in channels or a token of their own, are nowhere.

    Args:
        method: The method.
        known: Values of known extras.
        request: What is drawn, and how it is guided.
        size: Samples.

    Attributes:
        last: Values of what is drawn, as the heads have read them last.
    """

    def __init__(self, method: "MTDiffusion", known: dict[str, Tensor], request: JointRequest, size: int) -> None:
        network = method.network
        self.method, self.network, self.known, self.request = method, network, known, request
        self.last: dict[str, Value] = {}
        self.beside = method.beside(request.drawn_extras) if request.representation_guidance != 1 else []
        self.is_guided = bool(known) and (request.guidance, request.head_guidance) != (1, 0)
        self.told = network.tell(known, request.drawn, size)
        self.told_alone = network.tell({}, request.drawn, size)
        self.told_without = network.tell(known, [name for name in request.drawn if name not in self.beside], size)
        self.encodings = network.encode(known)

    def __call__(self, noisy: State, time: Times) -> tuple[State, Encoded]:
        """The prediction at z_t, and the encodings that are taken out of it.

        Args:
            noisy: z_t.
            time: t of each sample.
        """
        prediction, outputs = self.network(noisy, time, self.told)
        aggregated = dict(self.encodings)
        for name in self.request.drawn_extras:
            extra = self.method.extra(name)
            aggregated[name] = self.method.space.lift(extra.expectation(outputs[name]), extra)
            self.last[name] = extra.value(outputs[name])
        guided = self.guided(prediction, noisy, time) if self.is_guided else prediction
        if self.beside:
            free = self.method.diffusion.drift_free(noisy, time, {name: aggregated[name] for name in self.beside})
            without = self.network(free, time, self.told_without)[0]
            guided = guided + (self.request.representation_guidance - 1) * (prediction - without)
        return complete(self.method, guided, noisy, time, aggregated), aggregated

    def guided(self, prediction: Image, noisy: State, time: Times) -> Image:
        """The prediction, guided by what is known."""
        free = self.method.diffusion.drift_free(noisy, time, self.encodings)
        alone, gradient = self.alone(free, time)
        guided = alone + self.request.guidance * (prediction - alone)
        return self.method.diffusion.add_score(guided, time, self.request.head_guidance * gradient)

    def alone(self, free: State, time: Times) -> tuple[Image, Image]:
        """The prediction of nothing known at a drift-free state, and the heads' gradient of what is known there."""
        if not self.request.head_guidance:
            prediction = self.network(free, time, self.told_alone)[0]
            return prediction, torch.zeros_like(prediction)
        with torch.enable_grad():
            free = free.detach().requires_grad_()
            prediction, outputs = self.network(free, time, self.told_alone)
            share = time / self.method.diffusion.num_steps
            each = [
                self.method.extra(name).log_probability(outputs[name], value, share).sum()
                for name, value in self.known.items()
            ]
            (gradient,) = torch.autograd.grad(torch.stack(each).sum(), free)
        return prediction.detach(), gradient[:, : self.method.space.image_channels]


def complete(method: "MTDiffusion", prediction: Image, noisy: State, time: Times, encodings: Encoded) -> State:
    """A prediction in all channels: the image has none in extras' own, where the drift-free state is all noise.

    Args:
        method: The method.
        prediction: Of the image.
        noisy: z_t.
        time: t of each sample.
        encodings: What is taken out of z_t.
    """
    start = method.space.image_channels
    if start == method.space.num_channels:
        return prediction
    free = method.diffusion.drift_free(noisy, time, encodings)[:, start:]
    noise = free / at(method.diffusion.noise_level, time, free)
    return torch.cat([prediction, method.diffusion.target(torch.zeros_like(free), time, noise)], dim=1)
