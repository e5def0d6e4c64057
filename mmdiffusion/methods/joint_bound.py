"""The bound of a trained MT-Diffusion, term by term (Chen et al. 2024, arXiv 2407.17571, Theorem 1)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.diffusion.bound import decoder_nll, gaussian_kl, prior_kl
from mmdiffusion.methods.checks import check_entries, check_trained
from mmdiffusion.methods.joint_predictor import complete
from mmdiffusion.seeding import SampleNoise
from mmdiffusion.types import Batch

if TYPE_CHECKING:
    from mmdiffusion.methods.mt_diffusion import MTDiffusion

NUM_QUARTERS = 4


@torch.no_grad()
def joint_bound(method: "MTDiffusion", batch: Batch, num_strata: int = 50) -> dict[str, Float[Tensor, " b"]]:
    """Upper bound on -log p(image, extras) of each sample, all extras hidden; an unbiased estimate of its every term.

    L0 + L1 + L3 bounds the image's part, and L2 is -log p(x_i | z_t) with t drawn evenly: the bound of a single copy of
    the extras, by Jensen's inequality (derived; the paper's own sums L2 over t, which is T copies of them). L1 sums
    over the neighbouring steps of all t: one of each stratum is drawn and counts for all of it. The reverse step has
    the posterior's variance, and its mean takes the expected encoding of what is hidden.

    Args:
        method: The model.
        batch: `image`, the extras and `index`, which seeds noise and times.
        num_strata: Parts of the time from which one is drawn, 1 to T - 1.

    Returns:
        In nats a sample: `prior` (L0), `diffusion_t1` to `diffusion_t4` (L1 by quarter of the time), `decoder` (L3) and
        their sum `image`; and each extra's `-log p` under its name (L2).

    Raises:
        ValueError: if the batch lacks the image or an extra.
    """
    check_entries(batch, ["image", *(extra.name for extra in method.each())], "the bound")
    image, index = batch["image"], batch["index"]
    assert isinstance(image, Tensor)
    assert isinstance(index, Tensor)
    image, noise = image.to(method.device), SampleNoise(method.seed, index.tolist(), method.device)
    values = {extra.name: batch[extra.name].to(method.device) for extra in method.each()}  # pyright: ignore
    encodings, clean, diffusion = method.network.encode(values), method.space.lift(image), method.diffusion
    told = method.network.tell({}, list(values), len(image))
    start = method.space.image_channels

    last = torch.full((len(image),), diffusion.num_steps, device=method.device)
    nats = {"prior": prior_kl(diffusion, diffusion.corrupt(clean, last, torch.zeros_like(clean), encodings))}
    nats |= {f"diffusion_t{i + 1}": torch.zeros(len(image), device=method.device) for i in range(NUM_QUARTERS)}
    own = {name: torch.zeros(len(image), device=method.device) for name in values}
    for low, high in strata(diffusion.num_steps, num_strata):
        count = high - low + 1
        time = low + (noise.uniform((1,))[:, 0] * count).long().clamp(max=count - 1)
        noisy = diffusion.corrupt(clean, time, noise.normal(method.space.shape), encodings)
        prediction, outputs = method.network(noisy, time, told)
        guessed = {n: method.space.lift(method.extra(n).expectation(outputs[n]), method.extra(n)) for n in values}
        free = diffusion.drift_free(noisy, time, guessed)
        estimated = diffusion.predict_x0(free, time, complete(method, prediction, noisy, time, guessed))
        for name, value in values.items():
            chance = method.extra(name).log_probability(outputs[name], value, time / diffusion.num_steps)
            own[name] -= chance * count / diffusion.num_steps
        if high == 1:
            nats["decoder"] = decoder_nll(diffusion, image, estimated[:, :start], time, method.image.num_levels)
            continue
        mean, variance = diffusion.posterior(noisy, clean, time, time - 1, encodings)
        model_mean, _ = diffusion.posterior(noisy, estimated, time, time - 1, guessed)
        kl, quarter = (
            gaussian_kl(mean, variance, model_mean, variance),
            (time - 1) * NUM_QUARTERS // diffusion.num_steps,
        )
        for i in range(NUM_QUARTERS):
            nats[f"diffusion_t{i + 1}"] += kl * count * (quarter == i)
    return nats | {"image": torch.stack(list(nats.values())).sum(0)} | own


def check_hidden(method: "MTDiffusion") -> None:
    """Check that training covers what is bounded: the image, and every extra hidden at times and read by its head.

    Args:
        method: The model.

    Raises:
        ValueError: naming the image if it does not train, an extra that is never hidden, or whose head does not train.
    """
    check_trained(method.image_weight, "image_weight", "the image that Bound measures; leave Bound out")
    for extra in method.each():
        if not extra.is_hidden_at_times:
            raise ValueError(
                f"absent_share and shown_share of {extra.name} are 1 in sum: expected less in training, as Bound "
                "measures with all extras hidden; leave Bound out of this run"
            )
        check_trained(extra.weight, f"weight of {extra.name}", "the head that Bound measures; leave Bound out")


def strata(num_steps: int, number: int) -> Iterator[tuple[int, int]]:
    """Parts of the times, each its first and last, from T down: even ones of 2..T, and time 1 by itself (derived).

    Args:
        num_steps: T.
        number: Parts of 2..T.

    Raises:
        ValueError: if there are no such parts.
    """
    if not 1 <= number <= num_steps - 1:
        raise ValueError(f"num_strata is {number}: expected 1 to {num_steps - 1}")
    edges = [1 + (num_steps - 1) * i // number for i in range(number + 1)]
    for i in reversed(range(number)):
        yield edges[i] + 1, edges[i + 1]
    yield 1, 1
