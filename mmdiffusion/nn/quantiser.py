"""A learned codebook: the nearest code of each encoding, kept where the encodings are."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn import functional as F


class Quantiser(nn.Module):
    """Codebook whose codes follow the mean of their encodings (van den Oord et al. 2017, App. A.1, arXiv 1711.00937).

    A code in too little use starts again at an encoding of the batch (Dhariwal et al. 2020, arXiv 2005.00341); so the
    first batches place the whole codebook. Gradients of codes are copied to their encodings (van den Oord et al. 2017,
    Sec. 3.2); with the library's default, the rotation trick (arXiv 2410.06424), encodings stayed small and digits
    lost 4 dB.

    The library decides at construction whether processes share a codebook, before Lightning has started them, and draws
    new codes from the global generator; both are given to it here.

    Args:
        num_codes: Number of codes.
        code_width: Width of a code.
        decay: Share of the old mean that is kept, per batch.
        revive_below: Mean number of uses per step, over all processes, below which a code starts again; 0 for never.
    """

    def __init__(self, num_codes: int, code_width: int, decay: float, revive_below: float) -> None:
        from vector_quantize_pytorch import VectorQuantize  # a second or two, for those who use it

        super().__init__()
        self.lookup = VectorQuantize(
            code_width,
            num_codes,
            decay=decay,
            threshold_ema_dead_code=revive_below,  # pyright: ignore[reportArgumentType] - guessed from its default
            sync_codebook=False,
            rotation_trick=False,
        )
        assert {"all_reduce_fn", "replace_sample_fn"} <= vars(self.lookup._codebook).keys(), "another version of it"
        self.lookup._codebook.all_reduce_fn = add_over_processes

    def forward(
        self,
        encodings: Float[Tensor, "b n d"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Int[Tensor, "b n"], Float[Tensor, ""]]:
        """Codes with a gradient, tokens, and the commitment loss: mean squared distance of encodings to their codes.

        In training mode the codebook takes the batch in.

        Args:
            encodings: Encodings.
            generator: Source of the encodings at which codes start again; needed in training mode only.
        """
        with torch.autocast(encodings.device.type, enabled=False):  # the library's own guard knows CUDA alone
            encodings = encodings.float()
            if self.training:
                assert generator is not None, "a codebook that trains draws: give it the step's generator"
                draw = partial(draw_over_processes, generator=generator)
                self.lookup._codebook.replace_sample_fn = draw  # pyright: ignore[reportAttributeAccessIssue]
                return self.lookup(encodings)
            tokens = self.tokens(encodings)
            codes = self.codes(tokens)
            return codes, tokens, F.mse_loss(encodings, codes)

    def tokens(self, encodings: Float[Tensor, "b n d"]) -> Int[Tensor, "b n"]:
        """Number of the nearest code, in float32; changes nothing."""
        with torch.autocast(encodings.device.type, enabled=False):
            return torch.cdist(encodings.float(), self.lookup.codebook.expand(len(encodings), -1, -1)).argmin(-1)

    def codes(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """The codes themselves."""
        return self.lookup.codebook[tokens]


def num_processes() -> int:
    """Processes that train together: 1 where none were started."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def add_over_processes(values: Tensor) -> None:
    """Sum of a tensor over the processes, in place."""
    if num_processes() > 1:
        distributed.all_reduce(values)


def draw_over_processes(
    encodings: Float[Tensor, "1 n d"],
    count: int,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "1 count d"]:
    """Encodings drawn from the batches of the processes in turn, the same on each.

    Args:
        encodings: Encodings of this process.
        count: Number of encodings to draw, with replacement.
        generator: Source of the draws, one of its own on each process.
    """
    rows = torch.randint(encodings.shape[1], (count,), generator=generator, device=encodings.device)
    drawn = encodings.detach()[:, rows].contiguous()
    if num_processes() > 1:
        turn = torch.arange(count, device=encodings.device) % num_processes()
        drawn = drawn * (turn == distributed.get_rank())[None, :, None]
        distributed.all_reduce(drawn)
    return drawn
