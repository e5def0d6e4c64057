"""The posterior of mask-and-replace diffusion, four numbers a token (Gu et al. 2022, arXiv 2111.14822)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

Tokens = Int[Tensor, "b *m l"]
"""Codes 0..K-1, and K for [MASK]; *m: several sequences of one sample, such as negatives."""

SharedTokens = Int[Tensor, "b *one l"]

Masses = Float64[Tensor, "b *m l"]


class Rates(NamedTuple):
    """Cumulative rates at s and t, shaped to broadcast against tokens; the exact kernel between them as properties.

    From a code, one step from s to t keeps it with alpha + beta, goes to each other code with beta and to [MASK] with
    gamma; alpha + K beta + gamma = 1 (Gu et al. 2022, arXiv 2111.14822). The family is closed under products, so the
    same form holds for any s < t (derived).
    """

    alpha_bar_s: Float64[Tensor, "b *one"]
    beta_bar_s: Float64[Tensor, "b *one"]
    gamma_bar_s: Float64[Tensor, "b *one"]
    alpha_bar_t: Float64[Tensor, "b *one"]
    beta_bar_t: Float64[Tensor, "b *one"]
    gamma_bar_t: Float64[Tensor, "b *one"]

    @property
    def alpha(self) -> Float64[Tensor, "b *one"]:
        """alpha_bar_t / alpha_bar_s (derived)."""
        return self.alpha_bar_t / self.alpha_bar_s

    @property
    def beta(self) -> Float64[Tensor, "b *one"]:
        """(1 - alpha - gamma) / K, without the cancellation (derived)."""
        difference = self.beta_bar_t * self.alpha_bar_s - self.alpha_bar_t * self.beta_bar_s
        return difference / (self.alpha_bar_s * (1 - self.gamma_bar_s))

    @property
    def gamma(self) -> Float64[Tensor, "b *one"]:
        """1 - (1 - gamma_bar_t) / (1 - gamma_bar_s), without the cancellation (derived)."""
        return (self.gamma_bar_t - self.gamma_bar_s) / (1 - self.gamma_bar_s)


class SparsePosterior(NamedTuple):
    """q(x_s | x_t, x_0): the same small mass on every code, more on two of them, and that of [MASK].

    Attributes:
        mask: Mass of [MASK].
        each: Mass of every code.
        noisy: What the code x_t has besides; 0 where x_t is [MASK].
        clean: What the code x_0 has besides; K each + noisy + clean + mask = 1.
    """

    mask: Masses
    each: Masses
    noisy: Masses
    clean: Masses

    @classmethod
    def of(cls, rates: Rates, noisy: SharedTokens, clean: Tokens, num_codes: int) -> "SparsePosterior":
        """The posterior's closed form (derived from Bayes' rule, Gu et al. 2022, arXiv 2111.14822).

        A code j has q(x_t | x_s = j) q(x_s = j | x_0) / q(x_t | x_0) with q(x_t | j) = alpha 1[j = x_t] + beta at a
        visible x_t, gamma at [MASK], and q(j | x_0) = alpha_bar_s 1[j = x_0] + beta_bar_s.

        Args:
            rates: Rates at s and t.
            noisy: x_t, the same for several x_0 or not.
            clean: x_0, codes only.
            num_codes: K.
        """
        visible, same = noisy != num_codes, noisy == clean
        evidence = torch.where(visible, rates.alpha_bar_t * same + rates.beta_bar_t, rates.gamma_bar_t)
        stay = torch.where(visible, rates.alpha, 0) / evidence
        move = torch.where(visible, rates.beta, rates.gamma) / evidence
        return cls(
            mask=torch.where(visible, 0, rates.gamma_bar_s / rates.gamma_bar_t).expand_as(move),
            each=move * rates.beta_bar_s,
            noisy=stay * (rates.alpha_bar_s * same + rates.beta_bar_s),
            clean=move * rates.alpha_bar_s,
        )

    def dense(self, noisy: Tokens, clean: Tokens, num_codes: int) -> Float64[Tensor, "b *m l states"]:
        """Probabilities of all K + 1 states, [MASK] last (derived: the four masses spread out)."""
        probs = self.each[..., None].repeat(*[1] * self.each.ndim, num_codes + 1)
        probs[..., -1] = self.mask
        for tokens, mass in ((noisy, self.noisy), (clean, self.clean)):
            probs.scatter_add_(-1, tokens[..., None], mass[..., None])
        return probs

    def remasked(self, rates: Rates, noisy: Tokens, share: float, num_codes: int) -> "SparsePosterior":
        """A posterior that masks visible codes again and unmasks more of the others, with the same q(x_s | x_0).

        ReMDM's posterior for masking diffusion (Wang et al. 2025, arXiv 2503.00307), with sigma_t = `share` times its
        largest value min(1, gamma_bar_s / (1 - gamma_bar_t)). It carries over to replacement unchanged because
        masking does not look at the code (derived): a visible token is masked with sigma and follows the plain
        posterior otherwise; a masked one stays masked with (gamma_bar_s - (1 - gamma_bar_t) sigma) / gamma_bar_t.

        Args:
            rates: Rates at s and t.
            noisy: x_t.
            share: 0 for the plain posterior to 1 for the most remasking.
            num_codes: K.
        """
        visible, unmasked = noisy != num_codes, 1 - rates.gamma_bar_t
        sigma = share * (rates.gamma_bar_s / unmasked).clamp(max=1)
        mask = torch.where(visible, sigma, (rates.gamma_bar_s - unmasked * sigma) / rates.gamma_bar_t).clamp(min=0)
        scale = (1 - mask) / (1 - self.mask)
        return SparsePosterior(mask, self.each * scale, self.noisy * scale, self.clean * scale)

    def draw(self, noisy: Tokens, clean: Tokens, noise: Float[Tensor, "b 2 l"], num_codes: int) -> Int[Tensor, "b l"]:
        """Draw x_s: first what happens to the token, then, where it is replaced, by which code (derived).

        Two uniforms a token suffice, and rates far below the resolution of float32 Gumbel noise keep their meaning.

        Args:
            noisy: x_t, (b l).
            clean: x_0, (b l).
            noise: Uniform numbers in [0, 1): the event's and the code's.
            num_codes: K.
        """
        event, code = noise.double().unbind(1)
        replaced = self.mask + num_codes * self.each
        # What is left belongs to x_0, whose mass is never 0: rounding of the sums cannot pick an impossible state.
        drawn = torch.where(event < replaced + self.noisy, noisy, clean)
        drawn = torch.where(event < replaced, uniform_codes(code, num_codes), drawn)
        return torch.where(event < self.mask, num_codes, drawn)


def uniform_codes(uniform: Float[Tensor, "b l"], num_codes: int) -> Int[Tensor, "b l"]:
    """Codes 0..K-1, equally likely, from uniform numbers in [0, 1) (derived: inverse distribution function)."""
    return (uniform.double() * num_codes).long().clamp(max=num_codes - 1)
