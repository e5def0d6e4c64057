"""Which steps are trained: drawn in proportion to the size of their loss (Nichol & Dhariwal 2021, arXiv 2102.09672)."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, distributed

from mmdiffusion.diffusion.buffers import ExactBuffers

Times = Int[Tensor, " b"]


class ImportanceTimes(ExactBuffers):
    """Draws steps with probability close to sqrt(E[L_t^2]), which lowers the variance of sum_t L_t (their Eq. 18).

    E[L_t^2] is a running mean per step. Until every step has been seen `warmup` times, all are alike. Divide a term by
    its probability: L_t / p_t estimates sum_t L_t without bias, whatever the probabilities.

    As in VQ-Diffusion's code (github.com/microsoft/VQ-Diffusion) t = 1 is drawn as often as t = 2, because its term, a
    cross-entropy and no KL, is of another kind. Unlike there, repeats of a step in a batch are averaged instead of
    overwriting one another, and all processes share one history. The buffers are part of a checkpoint.

    Args:
        num_steps: T, the number of diffusion steps, at least 2.
        decay: Share of the history that an update keeps, 0 to 1.
        warmup: How often every step is seen before probabilities differ.
    """

    square: Tensor
    count: Tensor

    def __init__(self, num_steps: int, decay: float = 0.9, warmup: int = 11) -> None:
        super().__init__()
        if num_steps < 2:
            raise ValueError(f"num_steps is {num_steps}: expected at least 2 to choose from")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: expected 0 to below 1, the share of history that an update keeps")
        self.num_steps = num_steps
        self.decay = decay
        self.warmup = warmup
        self.register_buffer("square", torch.zeros(num_steps, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(num_steps, dtype=torch.int64))

    def extra_repr(self) -> str:
        """Steps, for printing."""
        return f"num_steps={self.num_steps}, decay={self.decay}, warmup={self.warmup}"

    def probabilities(self) -> Float64[Tensor, " steps"]:
        """Probability of drawing each of the steps 1..T (Nichol & Dhariwal 2021, Eq. 18; floors of VQ-Diffusion)."""
        weight = (self.square + 1e-10).sqrt() + 1e-4
        weight[0] = weight[1]
        weight = torch.where((self.count >= self.warmup).all(), weight, torch.ones_like(weight))
        return weight / weight.sum()

    def draw(self, size: int, generator: torch.Generator) -> tuple[Times, Float64[Tensor, " b"]]:
        """Draw steps with replacement (Nichol & Dhariwal 2021, Sec. 3.3, arXiv 2102.09672).

        Args:
            size: Number of samples.
            generator: Source of the draw, on the buffers' device; give each process its own.

        Returns:
            t of each sample, 1..T, and the probability with which it was drawn.
        """
        probabilities = self.probabilities()
        index = torch.multinomial(probabilities, size, replacement=True, generator=generator)
        return index + 1, probabilities[index]

    @torch.no_grad()
    def update(self, time: Times, loss: Float[Tensor, " b"]) -> None:
        """Take note of losses; with several processes, of all of theirs (Nichol & Dhariwal 2021, Sec. 3.3).

        With `torch.distributed` initialised this is a collective call: every process makes it, each with as many
        samples as it has. They hold the same history afterwards, that of one process given everything. A loss that is
        not finite is left out: one would spoil its step for good.

        Args:
            time: t of each sample, 1..T.
            loss: L_t of each sample, before division by its probability; the bound's term alone, no other loss.

        Raises:
            ValueError: if a time is outside 1..T.
        """
        if bool(((time < 1) | (time > self.num_steps)).any()):
            raise ValueError(f"time is {time.tolist()}: expected 1 to {self.num_steps}, the steps of the schedule")
        seen = self.square.new_zeros(2, self.num_steps)
        is_finite = loss.isfinite()
        values = torch.stack([loss.double().where(is_finite, 0) ** 2, is_finite.double()])
        seen.index_add_(1, time - 1, values)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
        total, number = seen
        mean = total / number.clamp(min=1)
        self.square.copy_(torch.where(number > 0, self.square.lerp(mean, 1 - self.decay), self.square))
        self.count.add_(number.long())
