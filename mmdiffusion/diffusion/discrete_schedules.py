"""Schedules of mask-and-replace diffusion: float64 tables over the steps t = 0..T, index 0 the clean state."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mmdiffusion.diffusion.schedules import Table

FLOOR = 9e-6
"""Share of tokens still kept at T where a schedule would reach 0: log and division stay finite (VQ-Diffusion's)."""

REPLACED = 1e-6
"""Share of replaced tokens in the masking schedules (that of VQ-Diffusion's code). Not 0: a negative's posterior at a
visible token that contradicts it would be 0/0."""


class TokenSchedule(ABC):
    """How a token fares up to each step: kept, masked, or replaced by a uniformly drawn code.

    Gu et al. 2022, arXiv 2111.14822: alpha_bar_t (kept), gamma_bar_t (masked), and K beta_bar_t, which is what remains.

    Args:
        num_steps: T, the number of diffusion steps.
    """

    def __init__(self, num_steps: int = 100) -> None:
        if num_steps < self.min_steps:
            raise ValueError(f"num_steps is {num_steps}: {type(self).__name__} needs at least {self.min_steps}")
        self.num_steps = num_steps

    min_steps = 1

    @abstractmethod
    def keep(self) -> Table:
        """alpha_bar_t for t = 0..T, from exactly 1 downwards (Gu et al. 2022, arXiv 2111.14822)."""

    @abstractmethod
    def mask(self) -> Table:
        """gamma_bar_t for t = 0..T, from exactly 0 upwards (Gu et al. 2022, arXiv 2111.14822)."""

    def rates(self) -> tuple[Table, Table, Table]:
        """Kept, replaced and masked shares for t = 0..T, checked to describe a chain (derived).

        Every step must keep, replace and mask with a probability above 0: then every posterior is defined.

        Returns:
            alpha_bar_t, K beta_bar_t and gamma_bar_t; they sum to 1.

        Raises:
            ValueError: if a step leaves the simplex, naming the step and the value.
        """
        keep, mask = self.keep(), self.mask()
        self._check_start("keep", keep, 1.0)
        self._check_start("mask", mask, 0.0)
        replace = 1 - keep - mask
        # beta_t > 0 means: among the tokens that are not masked, the replaced gain on the kept.
        odds = replace[1:] * keep[:-1] - keep[1:] * replace[:-1]
        rest = "replaced share 1 - keep - mask"
        self._check_steps("keep", keep, keep[1:], "above 0")
        self._check_steps("mask", mask, 1 - mask[1:], "below 1")
        self._check_steps(rest, replace, replace[1:], "above 0")
        self._check_steps("keep", keep, keep[:-1] - keep[1:], "below that of the step before")
        self._check_steps("mask", mask, mask[1:] - mask[:-1], "above that of the step before")
        self._check_steps(rest, replace, odds, "to grow from the step before relative to keep")
        return keep, replace, mask

    def _check_start(self, name: str, table: Table, clean: float) -> None:
        if len(table) != self.num_steps + 1 or float(table[0]) != clean:
            raise ValueError(
                f"{type(self).__name__}: {name} has {len(table)} entries from {float(table[0])} on: expected "
                f"{self.num_steps + 1} for the steps 0 to num_steps, the first exactly {clean}"
            )

    def _check_steps(self, name: str, table: Table, margin: Tensor, expected: str) -> None:
        """Refuse the first step whose margin is not above 0; margins start at step 1."""
        wrong = (~(margin > 0)).nonzero().flatten()
        if len(wrong):
            step = int(wrong[0]) + 1
            raise ValueError(
                f"{type(self).__name__}: {name} at step {step} is {float(table[step]):.6g}: expected {expected}; "
                "correct the rates of this step"
            )


class ReleasedSchedule(TokenSchedule):
    """The schedule that VQ-Diffusion's and CDCD's public code runs, for parity with their numbers.

    alpha_bar falls linearly from 0.99999 at t = 1 to 0.000009 at T, gamma_bar rises from 0.000009 to 0.99999
    (`alpha1` in github.com/microsoft/VQ-Diffusion): in effect pure masking, a constant 1e-6 of the tokens is replaced.
    """

    min_steps = 2

    def keep(self) -> Table:
        """alpha_bar_t (github.com/microsoft/VQ-Diffusion, `alpha_schedule`; Gu et al. 2022, arXiv 2111.14822)."""
        return self._line(1.0, 0.99999, FLOOR)

    def mask(self) -> Table:
        """gamma_bar_t (github.com/microsoft/VQ-Diffusion, `alpha_schedule`; Gu et al. 2022, arXiv 2111.14822)."""
        return self._line(0.0, FLOOR, 0.99999)

    def _line(self, clean: float, first: float, last: float) -> Table:
        line = torch.linspace(first, last, self.num_steps, dtype=torch.float64)
        return torch.cat([torch.tensor([clean], dtype=torch.float64), line])


class MaskAndReplaceSchedule(TokenSchedule):
    """Masked and replaced shares both rise linearly, as the VQ-Diffusion paper states (arXiv 2111.14822).

    At T a token is masked with probability `mask_share`, replaced by a uniform code otherwise; 9e-6 are kept.

    Args:
        num_steps: T, the number of diffusion steps.
        mask_share: gamma_bar_T, the masked share at T, between 0 and 1.
    """

    def __init__(self, num_steps: int = 100, mask_share: float = 0.9) -> None:
        super().__init__(num_steps)
        if not 0 < mask_share < 1:
            raise ValueError(
                f"mask_share is {mask_share}: expected between 0 and 1; for masking alone take CosineMaskingSchedule "
                "or ReleasedSchedule"
            )
        self.mask_share = mask_share

    def keep(self) -> Table:
        """alpha_bar_t, linear to 9e-6 (Gu et al. 2022, arXiv 2111.14822; the floor is ours)."""
        return 1 - self._noised()

    def mask(self) -> Table:
        """gamma_bar_t, linear to `mask_share` (Gu et al. 2022, arXiv 2111.14822)."""
        return self.mask_share * self._noised()

    def _noised(self) -> Table:
        return torch.linspace(0, 1 - FLOOR, self.num_steps + 1, dtype=torch.float64)


class CosineMaskingSchedule(TokenSchedule):
    """Cosine masking of MaskGIT: after a share r of decoding cos(pi r / 2) is masked (arXiv 2202.04200, Sec. 3.3).

    Read backwards, r = 1 - t/T. As in the released schedule 1e-6 of the tokens is replaced and 9e-6 are kept at T.
    """

    def keep(self) -> Table:
        """alpha_bar_t, what is neither masked nor replaced (Chang et al. 2022, Sec. 3.3, arXiv 2202.04200)."""
        keep = 1 - self.mask() - REPLACED
        keep[0] = 1
        return keep

    def mask(self) -> Table:
        """gamma_bar_t = sin(pi t / 2T), up to 0.99999 (Chang et al. 2022, Sec. 3.3, arXiv 2202.04200)."""
        angle = torch.linspace(0, math.pi / 2, self.num_steps + 1, dtype=torch.float64)
        return (1 - FLOOR - REPLACED) * angle.sin()


class TableSchedule(TokenSchedule):
    """User-given rates, checked at once.

    Args:
        keep: alpha_bar_t for t = 1..T, falling, above 0.
        mask: gamma_bar_t for t = 1..T, rising, below 1; what remains of 1 is the replaced share, above 0.
    """

    def __init__(self, keep: list[float], mask: list[float]) -> None:
        if len(keep) != len(mask):
            raise ValueError(f"keep has {len(keep)} numbers and mask {len(mask)}: expected one a step in both")
        super().__init__(len(keep))
        self._keep = torch.tensor([1.0, *keep], dtype=torch.float64)
        self._mask = torch.tensor([0.0, *mask], dtype=torch.float64)
        self.rates()

    def keep(self) -> Table:
        """alpha_bar_t as given (derived: a table)."""
        return self._keep

    def mask(self) -> Table:
        """gamma_bar_t as given (derived: a table)."""
        return self._mask
