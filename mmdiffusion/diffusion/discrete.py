"""Mask-and-replace diffusion of discrete tokens (Gu et al. 2022, arXiv 2111.14822; Austin et al. 2021, 2107.03006)."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mmdiffusion.diffusion.buffers import ExactBuffers
from mmdiffusion.diffusion.categorical import draw_codes, widen
from mmdiffusion.diffusion.discrete_kl import Divergence, divergence
from mmdiffusion.diffusion.discrete_posterior import Rates, SparsePosterior, Tokens, uniform_codes
from mmdiffusion.diffusion.discrete_schedules import TokenSchedule
from mmdiffusion.diffusion.schedules import strided

Times = Int[Tensor, " b"]
LogProbs = Float[Tensor, "b l codes"]


class MaskReplaceDiffusion(ExactBuffers):
    """Diffusion of tokens that are kept, replaced by a uniform code, or masked for good, over the steps t = 0..T.

        q(x_t = j | x_0 = k) = alpha_bar_t 1[j = k] + beta_bar_t for a code j, gamma_bar_t for j = [MASK]

    (Gu et al. 2022, arXiv 2111.14822). The clean state is t = 0 and any pair s < t is one exact step. Tokens are
    0..K-1, and K is [MASK]; log-probabilities are over the K codes, classes last: a clean token is never [MASK].

    It holds no network. Tables are float64 buffers that no checkpoint holds; whatever has one number a token is
    computed in float64, whatever has one a code in the precision of the log-probabilities, float32 at least, also under
    autocast. Noise is handed in as uniform numbers, so that a draw depends on its own sample's numbers alone.

    Args:
        schedule: Rates of masking and replacing.
        num_codes: K, the size of the codebook.
    """

    alpha_bar: Tensor
    beta_bar: Tensor
    gamma_bar: Tensor

    def __init__(self, schedule: TokenSchedule, num_codes: int) -> None:
        super().__init__()
        if num_codes < 2:
            raise ValueError(f"num_codes is {num_codes}: expected at least 2, the size of the codebook")
        self.num_steps = schedule.num_steps
        self.num_codes = num_codes
        keep, replace, mask = schedule.rates()
        self.register_buffer("alpha_bar", keep, persistent=False)
        self.register_buffer("beta_bar", replace / num_codes, persistent=False)
        self.register_buffer("gamma_bar", mask, persistent=False)

    def extra_repr(self) -> str:
        """Steps and codes, for printing."""
        return f"num_steps={self.num_steps}, num_codes={self.num_codes}"

    @property
    def mask_token(self) -> int:
        """[MASK], the state after the last code (derived: a convention)."""
        return self.num_codes

    # Forward process -------------------------------------------------------------------------------------------

    def corrupt(self, clean: Int[Tensor, "b l"], time: Times, noise: Float[Tensor, "b 2 l"]) -> Int[Tensor, "b l"]:
        """Draw x_t given x_0 (Gu et al. 2022, arXiv 2111.14822).

        First what happens to a token is drawn, then the code of a replaced one: a float32 Gumbel draw over all states
        could not reach the rates of the public schedule.

        Args:
            clean: x_0, codes only.
            time: t of each sample, 1..T.
            noise: Uniform numbers in [0, 1): the event's and the code's. Float64 numbers resolve every rate; float32
                ones come in steps of 6e-8.

        Raises:
            ValueError: if a token is no code or a time is outside 1..T.
        """
        self._check(clean=clean)
        rates = self.rates(time, torch.zeros_like(time), 1)
        event, code = noise.double().unbind(1)
        replaced = self.num_codes * rates.beta_bar_t
        noisy = torch.where(event < replaced + rates.gamma_bar_t, self.mask_token, clean)
        return torch.where(event < replaced, uniform_codes(code, self.num_codes), noisy)

    def rates(self, time: Times, target: Times, num_axes: int) -> Rates:
        """Rates at s and t, from which every kernel between them follows (derived: indexing).

        Args:
            time: t, 1..T.
            target: s, 0 to t - 1.
            num_axes: Axes after the batch's that the rates broadcast against.

        Raises:
            ValueError: if a time is outside 1..T, or a target outside 0..t-1.
        """
        if bool(((time < 1) | (time > self.num_steps)).any()):
            raise ValueError(f"time is {time.tolist()}: expected 1 to {self.num_steps}, the steps of the schedule")
        if bool(((target < 0) | (target >= time)).any()):
            raise ValueError(
                f"target is {target.tolist()} at time {time.tolist()}: expected 0 to time - 1, a step before it"
            )
        tables = (self.alpha_bar, self.beta_bar, self.gamma_bar)
        return Rates(*(table[at].reshape(-1, *[1] * num_axes) for at in (target, time) for table in tables))

    def prior(self, noise: Float[Tensor, "b 2 l"]) -> Int[Tensor, "b l"]:
        """Draw x_T: [MASK] with gamma_bar_T, any code alike otherwise (Gu et al. 2022, arXiv 2111.14822).

        Args:
            noise: Uniform numbers in [0, 1): the event's and the code's.
        """
        event, code = noise.double().unbind(1)
        return torch.where(event < self.gamma_bar[-1], self.mask_token, uniform_codes(code, self.num_codes))

    def prior_probs(self) -> Float64[Tensor, " states"]:
        """p(x_T) over the K + 1 states, [MASK] last (Gu et al. 2022, arXiv 2111.14822)."""
        probs = ((1 - self.gamma_bar[-1]) / self.num_codes).repeat(self.num_codes + 1)
        probs[-1] = self.gamma_bar[-1]
        return probs

    def prior_kl(self) -> Float64[Tensor, ""]:
        """KL(q(x_T | x_0) || p(x_T)) in nats a token, the same for every x_0 (derived)."""
        code = (1 - self.gamma_bar[-1]) / self.num_codes
        true, other = self.alpha_bar[-1] + self.beta_bar[-1], self.beta_bar[-1]
        return true * (true / code).log() + (self.num_codes - 1) * other * (other / code).log()

    # Reverse process -------------------------------------------------------------------------------------------

    def posterior(self, noisy: Tokens, clean: Tokens, time: Times, target: Times) -> Float64[Tensor, "b *m l states"]:
        """q(x_s | x_t, x_0) as probabilities of the K + 1 states, [MASK] last (Gu et al. 2022; for any s < t derived).

        Args:
            noisy: x_t.
            clean: x_0, codes only.
            time: t, 1..T.
            target: s, 0 to t - 1.
        """
        self._check(clean=clean, noisy=noisy)
        rates = self.rates(time, target, clean.ndim - 1)
        return SparsePosterior.of(rates, noisy, clean, self.num_codes).dense(noisy, clean, self.num_codes)

    def reverse(
        self, log_probs: LogProbs, noisy: Int[Tensor, "b l"], time: Times, target: Times
    ) -> Float[Tensor, "b l states"]:
        """log p_theta(x_s | x_t) = log sum_k p_hat_k q(x_s | x_t, x_0 = k), [MASK] last (Gu et al. 2022; derived).

        Closed form, in log space because the weights of a visible code divide by beta_bar_t (see `discrete_kl`).
        Training and sampling need no such table: see `divergence` and `step`.

        Args:
            log_probs: Normalised log p_hat(x_0 = k | x_t).
            noisy: x_t.
            time: t, 1..T.
            target: s, 0 to t - 1.
        """
        self._check(noisy=noisy, log_probs=log_probs)
        log_weights = widen(log_probs)
        rates = self.rates(time, target, 2)
        visible = (noisy != self.mask_token)[..., None]
        own = torch.where(visible, noisy[..., None], 0)

        discount = torch.where(visible, (rates.beta_bar_t / (rates.alpha_bar_t + rates.beta_bar_t)).log(), 0)
        log_weights = log_weights.scatter_add(-1, own, discount.to(log_weights))
        log_total = torch.where(visible, log_weights.logsumexp(-1, keepdim=True), 0)
        log_codes = torch.logaddexp(
            log_weights + rates.alpha_bar_s.log().to(log_weights),
            log_total + rates.beta_bar_s.log().to(log_weights),
        )
        each = torch.where(visible, rates.beta / rates.beta_bar_t, rates.gamma / rates.gamma_bar_t)
        stay = torch.where(visible, (rates.alpha / rates.beta).log1p(), 0)
        log_codes = (log_codes + each.log().to(log_codes)).scatter_add(-1, own, stay.to(log_codes))
        log_mask = torch.where(visible, 0, rates.gamma_bar_s / rates.gamma_bar_t).log()
        return torch.cat([log_codes, log_mask.to(log_codes)], -1)

    def divergence(
        self, log_probs: LogProbs, noisy: Int[Tensor, "b l"], clean: Int[Tensor, "b m l"], time: Times, target: Times
    ) -> Divergence:
        """KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)) and -log p_hat(x_0) for m candidates x_0 (derived).

        The candidates share x_t and the prediction, so that all cost one pass over the log-probabilities and a gather
        each: the truth comes first and negatives follow, as in CDCD's step mode (arXiv 2206.07771).

        Args:
            log_probs: Normalised log p_hat(x_0 = k | x_t); gradients flow to it.
            noisy: x_t.
            clean: Candidates for x_0, codes only.
            time: t, 1..T.
            target: s, 0 to t - 1; at 0 the KL is the cross-entropy.

        Returns:
            `kl` and `nll`, nats a token.

        Raises:
            ValueError: if a candidate is no code, or a step is out of range.
        """
        self._check(clean=clean, noisy=noisy, log_probs=log_probs)
        return divergence(widen(log_probs), noisy, clean, self.rates(time, target, 2))

    def step(
        self,
        log_probs: LogProbs,
        noisy: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b 3 l"],
        remask: float = 0.0,
    ) -> Int[Tensor, "b l"]:
        """Draw x_s from p_theta(x_s | x_t), by drawing x_0 from the prediction and x_s from the posterior (derived).

        The same distribution as `reverse`, without its table.

        Args:
            log_probs: log p_hat(x_0 = k | x_t), normalised or not.
            noisy: x_t.
            time: t, 1..T.
            target: s, 0 to t - 1; at 0 the draw is x_0.
            noise: Uniform numbers in [0, 1): those of `posterior_draw`, then that of x_0.
            remask: How much to mask again: see `SparsePosterior.remasked`.
        """
        self._check(log_probs=log_probs)
        clean = draw_codes(log_probs, noise[:, 2])
        return self.posterior_draw(noisy, clean, time, target, noise[:, :2], remask)

    def posterior_draw(
        self,
        noisy: Int[Tensor, "b l"],
        clean: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b 2 l"],
        remask: float = 0.0,
    ) -> Int[Tensor, "b l"]:
        """Draw x_s from q(x_s | x_t, x_0) (Gu et al. 2022, arXiv 2111.14822; for any s < t derived).

        Args:
            noisy: x_t.
            clean: x_0, codes only.
            time: t, 1..T.
            target: s, 0 to t - 1.
            noise: Uniform numbers in [0, 1): the event's and the code's.
            remask: How much to mask again: see `SparsePosterior.remasked`.
        """
        self._check(clean=clean, noisy=noisy)
        rates = self.rates(time, target, 1)
        posterior = SparsePosterior.of(rates, noisy, clean, self.num_codes)
        posterior = posterior.remasked(rates, noisy, remask, self.num_codes)
        return posterior.draw(noisy, clean, noise, self.num_codes)

    def step_times(self, steps: int) -> list[int]:
        """Steps of a sampling run, T first and 0 last, evenly strided (derived: every stride is one exact step).

        Args:
            steps: Number of strides, 1 to T.

        Raises:
            ValueError: if `steps` is outside 1..T.
        """
        return strided(self.num_steps, steps)

    def _check(
        self, *, clean: Tensor | None = None, noisy: Tensor | None = None, log_probs: Tensor | None = None
    ) -> None:
        for name, tokens, last in (("clean", clean, self.num_codes - 1), ("noisy", noisy, self.mask_token)):
            low, high = (int(x) for x in tokens.aminmax()) if tokens is not None else (0, 0)
            if low < 0 or high > last:
                raise ValueError(
                    f"{name} tokens run from {low} to {high}: expected 0 to {last}, as num_codes is {self.num_codes}; "
                    f"{self.mask_token} is [MASK], which a clean sequence never holds"
                )
        if log_probs is not None and log_probs.shape[-1] != self.num_codes:
            raise ValueError(
                f"log_probs has {log_probs.shape[-1]} classes: expected num_codes, {self.num_codes}; "
                "a prediction of the clean token has no class for [MASK]"
            )
