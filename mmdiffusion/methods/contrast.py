"""The contrastive term of CDCD (arXiv 2206.07771) as one piece with three switches.

form      linear: the published algorithm and code; infonce: the paper's formula, bounded
flavour   step: negatives are judged by one step of the chain; sample: by the prediction of the clean tokens
chain     shared: on the positive's noisy state (the code; no further pass); own: each on its own (the paper)
"""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.diffusion.discrete_bound import rising_weight
from mmdiffusion.diffusion.discrete_kl import Divergence
from mmdiffusion.losses import info_nce, linear_contrast
from mmdiffusion.methods.negatives import Negatives, NegativeSource
from mmdiffusion.numbers import check_number


class Contrast:
    """One kind of negatives, and how they are compared with the positive.

    Args:
        negatives: Where they come from.
        weight: lambda, weight in the loss (5e-5 in the paper's linear form).
        form: `linear` or `infonce`.
        flavour: `step` or `sample`.
        chain: `shared` or `own`.
        temperature: Scale of the scores under `infonce`, in nats per token.
        is_relative: Compare with what the network predicts when it is told nothing, at the cost of a second pass: the
            logarithm of the density ratio itself. Under `infonce` only.
        ceiling: Largest loss of a negative token in nats under `linear`, which nothing else bounds; `None` for none.
    """

    def __init__(
        self,
        negatives: NegativeSource,
        weight: float = 5e-5,
        form: Literal["linear", "infonce"] = "linear",
        flavour: Literal["step", "sample"] = "step",
        chain: Literal["shared", "own"] = "shared",
        temperature: float = 1.0,
        is_relative: bool = False,
        ceiling: float | None = None,
    ) -> None:
        for name, value in (("weight", weight), ("temperature", temperature)):
            check_number(name, value, above=0)
        if ceiling is not None and form != "linear":
            raise ValueError(f"ceiling is {ceiling}, form is {form}: expected None, it bounds the linear form only")
        if ceiling is not None:
            check_number("ceiling", ceiling, above=0)
        if is_relative and form != "infonce":
            raise ValueError(f"is_relative is True, form is {form}: expected infonce, which is about ratios")
        self.negatives = negatives
        self.weight = weight
        self.form, self.flavour, self.chain = form, flavour, chain
        self.temperature, self.is_relative, self.ceiling = temperature, is_relative, ceiling

    def __call__(
        self,
        positive: Float[Tensor, "b l"],
        negatives: Float[Tensor, "b n l"],
        drawn: Negatives,
        time: Int[Tensor, " b"],
        num_steps: int,
    ) -> Float[Tensor, " b"]:
        """The weighted term of each sample, in nats per sequence, to be summed over t like the bound.

        Under `linear` late steps count more, by 1 + (t - 1) / T as in the public code, and a token that is the
        positive's own does not count: it would push the right token away. Under `infonce` it is the mean over t, per
        token, that counts.

        Args:
            positive: Losses of the positive's tokens, nats.
            negatives: Losses of the negatives' tokens, nats.
            drawn: The negatives.
            time: t, 1 to T.
            num_steps: T.
        """
        if self.form == "linear":
            counted = negatives if self.ceiling is None else negatives.clamp(max=self.ceiling)
            term = rising_weight(time, num_steps) * linear_contrast((counted * drawn.counts).sum(-1))
        else:
            share = positive.shape[1] / num_steps
            term = share * info_nce(positive.mean(-1), negatives.mean(-1), self.temperature)
        return self.weight * term


def minus(losses: Divergence, others: Divergence) -> Divergence:
    """Differences of losses: logarithms of density ratios."""
    return Divergence(losses.kl - others.kl, losses.nll - others.nll)
