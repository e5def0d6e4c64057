"""Gaussian diffusion in discrete time: corruption, posterior and samplers (DDPM, arXiv 2006.11239)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.diffusion.buffers import ExactBuffers, check_table_dtype
from mmdiffusion.diffusion.schedules import NoiseSchedule, strided

PredictionKind = Literal["noise", "clean", "velocity"]
Sampler = Literal["ddpm", "ddim", "heun"]
State = Float[Tensor, "b *space"]
Times = Int[Tensor, " b"]
Encodings = Mapping[str, State]
"""Encodings e_i of extra modalities in the diffusion space, by modality name."""

NONE: Encodings = {}


class Estimate(NamedTuple):
    """What a network's output says about a noisy state.

    Attributes:
        clean: Estimate of z_0.
        noise: Estimate of the noise epsilon.
        encodings: Encodings that were taken as aggregated in the state; empty in plain diffusion.
    """

    clean: State
    noise: State
    encodings: Encodings = NONE


class GaussianDiffusion(ExactBuffers):
    """Gaussian diffusion over the steps t = 0..T, t = 0 the clean state; any pair s < t is one exact step.

    q(z_t | z_0) = N(sqrt(alpha_bar_t) z_0, (1 - alpha_bar_t) I)  (Ho et al. 2020, Eq. 4, arXiv 2006.11239).

    It holds no network: samplers take a callable. Tables are computed in float64 and kept as buffers that no
    checkpoint holds and no cast of the model reaches.

    Args:
        schedule: Noise schedule.
        prediction: What the network predicts: the noise, the clean state, or the velocity
            sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) clean (Salimans & Ho 2022, App. D, arXiv 2202.00512).
        dtype: Precision of the tables; float64 only for exact checks.

    Raises:
        ValueError: if `dtype` is neither float32 nor float64.
    """

    log_alpha_bar: Tensor
    signal: Tensor
    noise_level: Tensor

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction: PredictionKind = "velocity",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_table_dtype(dtype)
        self.num_steps = schedule.num_steps
        self.prediction = prediction
        alpha_bar = schedule.alpha_bar()
        self.register_buffer("log_alpha_bar", alpha_bar.log().to(dtype), persistent=False)
        self.register_buffer("signal", alpha_bar.sqrt().to(dtype), persistent=False)
        self.register_buffer("noise_level", (1 - alpha_bar).sqrt().to(dtype), persistent=False)

    def extra_repr(self) -> str:
        """Steps and prediction, for printing."""
        return f"num_steps={self.num_steps}, prediction={self.prediction!r}"

    # Forward process -------------------------------------------------------------------------------------------

    def corrupt(self, clean: State, time: Times, noise: State) -> State:
        """Draw z_t given z_0 (Ho et al. 2020, Eq. 4).

        Args:
            clean: z_0.
            time: t of each sample, 0..T.
            noise: Standard normal epsilon.
        """
        return at(self.signal, time, clean) * clean + at(self.noise_level, time, clean) * noise

    def transition(self, time: Times, target: Times, like: State) -> tuple[Tensor, Tensor]:
        """alpha and beta of the exact step from s to t: alpha_bar_t / alpha_bar_s and one minus it.

        The pair of Ho et al. 2020, Eq. 2 for neighbouring steps; for others derived by composing them.

        Args:
            time: t.
            target: s, below t.
            like: Tensor the results broadcast against.
        """
        log_alpha = at(self.log_alpha_bar, time, like) - at(self.log_alpha_bar, target, like)
        return log_alpha.exp(), -torch.expm1(log_alpha)

    def posterior(self, noisy: State, clean: State, time: Times, target: Times) -> tuple[State, Tensor]:
        """Mean and variance of q(z_s | z_t, z_0) (Ho et al. 2020, Eq. 6-7, for any s < t).

        Args:
            noisy: z_t.
            clean: z_0, or its estimate.
            time: t.
            target: s, 0 to t - 1.

        Returns:
            Mean, and the variance beta (1 - alpha_bar_s) / (1 - alpha_bar_t), exactly 0 for s = 0.
        """
        alpha, beta = self.transition(time, target, noisy)
        variance_t, variance_s = (at(self.noise_level, x, noisy) ** 2 for x in (time, target))
        mean = alpha.sqrt() * variance_s * noisy + beta * at(self.signal, target, noisy) * clean
        return mean / variance_t, beta * variance_s / variance_t

    # What a prediction says ------------------------------------------------------------------------------------

    def target(self, clean: State, time: Times, noise: State) -> State:
        """What the network should predict at z_t (Salimans & Ho 2022, App. D, for the velocity)."""
        if self.prediction == "noise":
            return noise
        if self.prediction == "clean":
            return clean
        return at(self.signal, time, clean) * noise - at(self.noise_level, time, clean) * clean

    def predict_x0(self, noisy: State, time: Times, prediction: State) -> State:
        """Clean state implied by a prediction at z_t (Ho et al. 2020, Eq. 15; Salimans & Ho 2022, App. D)."""
        signal, noise_level = at(self.signal, time, noisy), at(self.noise_level, time, noisy)
        if self.prediction == "noise":
            return (noisy - noise_level * prediction) / signal
        return prediction if self.prediction == "clean" else signal * noisy - noise_level * prediction

    def predict_noise(self, noisy: State, time: Times, prediction: State) -> State:
        """Noise implied by a prediction at z_t, t >= 1 (Ho et al. 2020, Eq. 15; Salimans & Ho 2022, App. D)."""
        signal, noise_level = at(self.signal, time, noisy), at(self.noise_level, time, noisy)
        if self.prediction == "clean":
            return (noisy - signal * prediction) / noise_level
        return prediction if self.prediction == "noise" else noise_level * noisy + signal * prediction

    def estimate(self, noisy: State, time: Times, prediction: State, clip: float | None = None) -> Estimate:
        """Clean state and noise implied by a prediction, consistent with each other and with z_t.

        Derived from `predict_x0` and `predict_noise`; with clipping, the noise follows from the clipped state.

        Args:
            noisy: z_t.
            time: t, at least 1.
            prediction: The network's output.
            clip: Largest absolute value of a clean state; `None` leaves it free.
        """
        clean = self.predict_x0(noisy, time, prediction)
        if clip is None:
            return Estimate(clean, self.predict_noise(noisy, time, prediction))
        clean = clean.clamp(-clip, clip)
        return Estimate(clean, self.noise_between(noisy, clean, time))

    def noise_between(self, noisy: State, clean: State, time: Times) -> State:
        """The noise that leads from z_0 to z_t, t >= 1 (Ho et al. 2020, Eq. 4, solved for epsilon)."""
        return (noisy - at(self.signal, time, noisy) * clean) / at(self.noise_level, time, noisy)

    def add_score(self, prediction: State, time: Times, gradient: State) -> State:
        """The prediction after a gradient is added to the score: noise -= sqrt(1 - alpha_bar_t) gradient.

        Classifier guidance (Dhariwal & Nichol 2021, Eq. 14, arXiv 2105.05233), for any kind of prediction (derived).
        """
        signal, noise_level = at(self.signal, time, prediction), at(self.noise_level, time, prediction)
        if self.prediction == "noise":
            return prediction - noise_level * gradient
        if self.prediction == "clean":
            return prediction + noise_level**2 / signal * gradient
        return prediction - noise_level / signal * gradient

    # Reverse process -------------------------------------------------------------------------------------------

    def step_times(self, steps: int) -> list[int]:
        """Steps of a sampling run, T first and 0 last, evenly strided (Song et al. 2021, Sec. 4.2, arXiv 2010.02502).

        Args:
            steps: Number of strides, 1 to T.

        Raises:
            ValueError: if `steps` is outside 1..T.
        """
        return strided(self.num_steps, steps)

    def move(self, noisy: State, estimate: Estimate, time: Times, target: Times, noise: State | None = None) -> State:
        """One step from z_t to z_s given an estimate: ancestral with noise, deterministic DDIM without.

        Ancestral: posterior mean and variance (Ho et al. 2020, Eq. 6-7). DDIM: Song et al. 2021, Eq. 12 with
        sigma = 0, arXiv 2010.02502.

        Args:
            noisy: z_t.
            estimate: Clean state and noise at z_t.
            time: t.
            target: s, 0 to t - 1.
            noise: Standard normal numbers of the ancestral step; `None` for the deterministic one.
        """
        if noise is None:
            return self.corrupt(estimate.clean, target, estimate.noise)
        mean, variance = self.posterior(noisy, estimate.clean, time, target)
        return mean + variance.sqrt() * noise

    def step(
        self,
        predict: Callable[[State, Times], Any],
        noisy: State,
        time: Times,
        target: Times,
        *,
        sampler: Sampler = "ddim",
        noise: State | None = None,
        clip: float | None = None,
    ) -> State:
        """One sampler step from z_t to z_s.

        "ddpm" and "ddim" call the network once (see `move`). "heun" is Heun's second-order step, two calls (as
        Karras et al. 2022, Algorithm 1, arXiv 2206.00364), on the same probability-flow ODE in other coordinates:
        z / sqrt(1 - alpha_bar) against sqrt(alpha_bar / (1 - alpha_bar)), where the slope is the clean estimate and
        no step near T is amplified (derived). Its last step, to s = 0, is a DDIM step, so that the order is 2 away from
        the clean end and about 1.5 over a whole run (measured on a Gaussian toy).

        Args:
            predict: The network: (z_t, t) to prediction.
            noisy: z_t.
            time: t, one for all samples or not.
            target: s, 0 to t - 1.
            sampler: Which step.
            noise: Standard normal numbers, needed by "ddpm" only.
            clip: Largest absolute value of a clean estimate; `None` leaves it free.
        """
        start = self.evaluate(predict, noisy, time, clip)
        if sampler == "ddpm":
            assert noise is not None, "the ddpm step needs noise"
            return self.move(noisy, start, time, target, noise)
        moved = self.move(noisy, start, time, target)
        is_last = (target == 0).reshape(-1, *[1] * (noisy.ndim - 1))
        if sampler == "ddim" or bool(is_last.all()):
            return moved
        assert sampler == "heun", sampler
        end = self.evaluate(predict, moved, target, clip)
        return torch.where(is_last, moved, self.move(noisy, self.average(noisy, start, end, time), time, target))

    def evaluate(
        self,
        predict: Callable[[State, Times], Any],
        noisy: State,
        time: Times,
        clip: float | None = None,
    ) -> Estimate:
        """Call the network once and read its output as an estimate (derived; see `estimate`)."""
        return self.estimate(noisy, time, predict(noisy, time), clip)

    def average(self, noisy: State, first: Estimate, second: Estimate, time: Times) -> Estimate:
        """Heun's mean slope as an estimate at z_t: mean clean state, and the noise that goes with it (derived)."""
        clean = (first.clean + second.clean) / 2
        return Estimate(clean, self.noise_between(noisy, clean, time))


def at(table: Tensor, time: Times, like: Tensor) -> Tensor:
    """Table entries at each sample's time, shaped to broadcast against `like` (derived: indexing)."""
    return table[time].reshape(-1, *[1] * (like.ndim - 1))
