"""Forward aggregation: several modalities in one diffusion space (MT-Diffusion, arXiv 2407.17571, Theorem 2)."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmdiffusion.diffusion.gaussian import (
    NONE,
    Encodings,
    Estimate,
    GaussianDiffusion,
    PredictionKind,
    State,
    Times,
    at,
)
from mmdiffusion.diffusion.schedules import DriftSchedule, NoiseSchedule

PRIOR_TOLERANCE = 0.05
"""Largest |alpha_tilde_T| that still lets z_T pass for a draw from N(0, I)."""


class AggregatedDiffusion(GaussianDiffusion):
    """Gaussian diffusion whose mean takes up encodings e_i of extra modalities on the way.

        q(z_t | z_{t-1}, X) = N(sqrt(alpha_t) (z_{t-1} + sum_i w_t^i e_i), (1 - alpha_t) I)
        q(z_t | z_0, X)     = N(sqrt(alpha_bar_t) z_0 + sum_i alpha_tilde_t^i e_i, (1 - alpha_bar_t) I)

    (arXiv 2407.17571, Theorem 2; alpha_t is the DDPM schedule, the paper's 1/(N + 1) is not consistent, see
    docs/methods/mt_diffusion.md.)

    Everything follows from one fact (derived): y_t = z_t - sum_i alpha_tilde_t^i e_i, the *drift-free* state, is a
    plain DDPM chain that starts at z_0. So each operation removes the drift at t, is the plain one, and adds the drift
    at s; forms (a), (b) and (c) of the paper's posterior mean all equal it. Modalities absent from `encodings` do not
    contribute: with none at all every result is bit for bit the plain one.

    In sampling, an unknown modality enters as the posterior mean of its *encoding*, which makes the reverse mean
    exact (derived, by linearity of the posterior mean in e).

    Args:
        schedule: Noise schedule.
        aggregation: How each extra modality is aggregated, by name.
        prediction: What the network predicts of the drift-free state.
        dtype: Precision of the tables; float64 only for exact checks.

    Raises:
        ValueError: if `dtype` is neither float32 nor float64, or a drift is not finite.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        aggregation: Mapping[str, DriftSchedule],
        prediction: PredictionKind = "velocity",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(schedule, prediction, dtype)
        alpha_bar = schedule.alpha_bar()
        for name, drift_schedule in aggregation.items():
            drift = drift_schedule.drift(alpha_bar).to(dtype)
            if not drift.isfinite().all():
                raise ValueError(
                    f"aggregation of {name!r}: alpha_tilde holds NaN or infinity in {dtype}: expected finite numbers; "
                    "lower its strength or weights"
                )
            if abs(float(drift[-1])) > PRIOR_TOLERANCE:
                warnings.warn(
                    f"aggregation of {name!r}: alpha_tilde_T is {float(drift[-1]):.3g}, expected at most "
                    f"{PRIOR_TOLERANCE}: the prior N(0, I) does not hold; lower its strength or take SaturatingDrift",
                    stacklevel=2,
                )
            self.register_buffer(f"drift_{name}", drift, persistent=False)

    def drift(self, time: Times, encodings: Encodings, like: State) -> State | float:
        """sum_i alpha_tilde_t^i e_i (arXiv 2407.17571, Theorem 2); the number 0 without encodings.

        Args:
            time: t of each sample.
            encodings: e_i by modality name; a sample's zero encoding means that it lacks the modality.
            like: Tensor the tables broadcast against.
        """
        return sum((at(self.drift_table(name), time, like) * e for name, e in encodings.items()), start=0.0)

    def drift_table(self, name: str) -> Tensor:
        """alpha_tilde_t of one modality, t = 0..T (arXiv 2407.17571, Theorem 2)."""
        return self.get_buffer(f"drift_{name}")

    def drift_free(self, noisy: State, time: Times, encodings: Encodings) -> State:
        """y_t = z_t - sum_i alpha_tilde_t^i e_i, a plain DDPM state (derived, see the class)."""
        return noisy - self.drift(time, encodings, noisy) if encodings else noisy

    # Forward process -------------------------------------------------------------------------------------------

    def corrupt(self, clean: State, time: Times, noise: State, encodings: Encodings = NONE) -> State:
        """Draw z_t given z_0 and X (arXiv 2407.17571, Theorem 2)."""
        noisy = super().corrupt(clean, time, noise)
        return noisy + self.drift(time, encodings, noisy) if encodings else noisy

    def kernel(
        self,
        state: State,
        time: Times,
        target: Times,
        encodings: Encodings = NONE,
    ) -> tuple[State, Tensor]:
        """Mean and variance of q(z_t | z_s, X), sqrt(alpha) (z_s + sum_i w^i e_i) and 1 - alpha.

        arXiv 2407.17571, Theorem 2; for a stride, w = alpha_tilde_t / sqrt(alpha) - alpha_tilde_s (derived).

        Args:
            state: z_s.
            time: t.
            target: s, below t.
            encodings: e_i by modality name.
        """
        alpha, beta = self.transition(time, target, state)
        mean = alpha.sqrt() * self.drift_free(state, target, encodings)
        return (mean + self.drift(time, encodings, state) if encodings else mean), beta

    def posterior(
        self,
        noisy: State,
        clean: State,
        time: Times,
        target: Times,
        encodings: Encodings = NONE,
    ) -> tuple[State, Tensor]:
        """Mean and variance of q(z_s | z_t, z_0, X) for any s < t (arXiv 2407.17571, Theorem 2, all three forms)."""
        mean, variance = super().posterior(self.drift_free(noisy, time, encodings), clean, time, target)
        return (mean + self.drift(target, encodings, noisy) if encodings else mean), variance

    # Reverse process -------------------------------------------------------------------------------------------

    def evaluate(
        self,
        predict: Callable[[State, Times], Any],
        noisy: State,
        time: Times,
        clip: float | None = None,
    ) -> Estimate:
        """Call the network, which returns a prediction and the encodings to subtract (arXiv 2407.17571, Sec. 3).

        Clipping acts on the estimate of z_0, never on z_0 plus drift.
        """
        prediction, encodings = predict(noisy, time)
        estimate = self.estimate(self.drift_free(noisy, time, encodings), time, prediction, clip)
        return estimate._replace(encodings=encodings)

    def move(self, noisy: State, estimate: Estimate, time: Times, target: Times, noise: State | None = None) -> State:
        """One step from z_t to z_s: plain in drift-free coordinates, then the drift at s (derived, see the class)."""
        encodings = estimate.encodings
        moved = super().move(self.drift_free(noisy, time, encodings), estimate, time, target, noise)
        return moved + self.drift(target, encodings, noisy) if encodings else moved

    def average(self, noisy: State, first: Estimate, second: Estimate, time: Times) -> Estimate:
        """Heun's mean slope: mean clean state and mean encodings (derived: trapezoid in both)."""
        encodings = {name: (e + second.encodings[name]) / 2 for name, e in first.encodings.items()}
        estimate = super().average(self.drift_free(noisy, time, encodings), first, second, time)
        return estimate._replace(encodings=encodings)
