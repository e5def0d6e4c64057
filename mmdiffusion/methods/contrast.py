"""The contrastive term of CDCD (arXiv 2206.07771) as one piece with three switches.

    form      linear: the published algorithm and code; infonce: the paper's formula, bounded
    flavour   step: a chain's loss at one step; sample: the loss of the clean tokens
    chain     shared: negatives are compared on the positive's noisy state (the code, no extra forward pass);
              own: each has its own noisy state and its own pass (the paper)
"""

from typing import Literal, Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

import torch
from mmdiffusion.losses import info_nce, linear_contrast
from mmdiffusion.methods.negatives import NegativeSource

Flavour = Literal["step", "sample"]


class Pair(Protocol):
    """A noisy state and its condition, by which clean tokens are judged."""

    def losses(
        self,
        tokens: Int[Tensor, "b n l"],
        flavour: Flavour,
        *,
        on_own_chain: bool,
        without_condition: bool,
    ) -> Float[Tensor, "b n l"]:
        """Loss of clean tokens in nats per token.

        Args:
            tokens: n sequences for each pair.
            flavour: `step`, of one step of the chain, or `sample`, of the prediction of the clean tokens.
            on_own_chain: Each sequence on a noisy state of its own, rather than on the pair's.
            without_condition: Tell the network nothing.
        """
        ...


class Contrast(nn.Module):
    """One kind of negatives and how they are compared with the positive.

    Args:
        negatives: Where they come from.
        weight: lambda, weight in the loss (5e-5 in the paper's linear form).
        form: `linear` or `infonce`.
        flavour: `step` or `sample`.
        chain: `shared` or `own`.
        temperature: Scale of the scores under `infonce`, in nats per token.
        is_relative: Compare with what the network predicts when it is told nothing, at the cost of a second pass:
            the logarithm of the density ratio itself.
        ceiling: Largest loss of a negative token, in nats, under `linear`, which nothing else bounds; `None` for none.
    """

    def __init__(
        self,
        negatives: NegativeSource,
        weight: float = 5e-5,
        form: Literal["linear", "infonce"] = "linear",
        flavour: Flavour = "step",
        chain: Literal["shared", "own"] = "shared",
        temperature: float = 1.0,
        is_relative: bool = False,
        ceiling: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"{name} is {value}: expected above 0")
        if ceiling is not None and form != "linear":
            raise ValueError(f"ceiling is {ceiling}, form is {form}: expected None, it bounds the linear form only")
        if is_relative and form != "infonce":
            raise ValueError(f"is_relative is True, form is {form}: expected infonce, which is about ratios")
        self.negatives = negatives
        self.weight = weight
        self.form, self.flavour, self.chain = form, flavour, chain
        self.temperature, self.is_relative, self.ceiling = temperature, is_relative, ceiling

    def forward(
        self,
        tokens: Int[Tensor, "b l"],
        group: Int[Tensor, " b"] | None,
        time: Int[Tensor, " b"],
        num_steps: int,
        pair: Pair,
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        """The weighted term of each positive.

        Args:
            tokens: The positives.
            group: Class of each positive.
            time: t, 1 to T.
            num_steps: T.
            pair: The positives' noisy states and conditions.
            generator: Source of every draw.

        Returns:
            Nats per sequence, to be summed over t like the bound. Under `linear` late steps count more, by
            1 + (t - 1) / T as in the public code; under `infonce` its mean over t is what counts, per token.
        """
        drawn = self.negatives(tokens, group, generator)
        negatives = self._losses(drawn.tokens, pair, on_own_chain=self.chain == "own")
        if self.form == "linear":
            counted = negatives if self.ceiling is None else negatives.clamp(max=self.ceiling)
            return self.weight * (1 + (time - 1) / num_steps) * linear_contrast((counted * drawn.counts).sum(-1))
        positive = self._losses(tokens[:, None], pair, on_own_chain=False)
        share = tokens.shape[1] / num_steps
        return self.weight * share * info_nce(positive.mean(-1)[:, 0], negatives.mean(-1), self.temperature)

    def _losses(self, tokens: Int[Tensor, "b n l"], pair: Pair, on_own_chain: bool) -> Float[Tensor, "b n l"]:
        losses = pair.losses(tokens, self.flavour, on_own_chain=on_own_chain, without_condition=False)
        if not self.is_relative:
            return losses
        return losses - pair.losses(tokens, self.flavour, on_own_chain=on_own_chain, without_condition=True)
