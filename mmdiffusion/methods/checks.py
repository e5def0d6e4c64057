"""A user's mistakes, found before any work: settings of a method, and what it is asked to draw."""

from collections.abc import Iterable, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mmdiffusion.numbers import check_number
from mmdiffusion.types import Batch

FEW_PAIRS = 16
"""Pairs of a contrastive batch below which a user is warned."""


def check_shares(name: str, absent_share: float, shown_share: float, weight: float) -> None:
    """Check the shares of an extra modality's states, and its weight.

    Args:
        name: The modality.
        absent_share: Share of training samples that lack it.
        shown_share: Share of training samples that show it.
        weight: Weight of its loss.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    check_unit_shares(**{f"absent_share of {name}": absent_share, f"shown_share of {name}": shown_share})
    if absent_share + shown_share > 1:
        raise ValueError(f"absent_share + shown_share of {name} is {absent_share + shown_share}: expected at most 1")
    check_number(f"weight of {name}", weight, least=0)


def check_unit_shares(**shares: float) -> None:
    """Check shares of training samples.

    Args:
        shares: By the name of their field.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}: expected 0 to 1")


def check_weights(generation_weight: float, alignment_weight: float, alignment_rate: float) -> None:
    """Check the weights of generation and discrimination.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    check_number("generation_weight", generation_weight, least=0)
    check_number("alignment_weight", alignment_weight, least=0)
    if generation_weight == alignment_weight == 0:
        raise ValueError("generation_weight and alignment_weight are 0: expected one of them above 0")
    check_number("alignment_rate", alignment_rate, above=0)


def check_pairs(size: int) -> None:
    """Check that a contrastive batch has negatives, and warn where it has few.

    Args:
        size: Pairs of the smallest batch.

    Raises:
        ValueError: for a single pair.
    """
    if size < 2:
        raise ValueError(f"the smallest batch has {size} pair: expected at least 2, a contrastive loss compares pairs")
    if size < FEW_PAIRS:
        rank_zero_warn(
            f"the smallest batch has {size} pairs: a contrastive loss over fewer than {FEW_PAIRS} hardly tells "
            "captions apart; raise batch_size (accumulating gradients adds no negatives)"
        )


def check_times(read_times: Sequence[float]) -> None:
    """Check the times of the states at which a known image is read.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if not read_times or not all(0 < time <= 1 for time in read_times):
        raise ValueError(f"read_times is {list(read_times)}: expected at least one, each above 0 up to 1")


def check_sharpening(truncation: float, temperature: float) -> None:
    """Check how predictions of codes are sharpened in sampling.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if not 0 < truncation <= 1:
        raise ValueError(f"truncation is {truncation}: expected above 0 and at most 1, which keeps every code")
    remedy = "for the most probable code alone take a tiny truncation"
    check_number("temperature", temperature, above=0, remedy=remedy)


def check_names(
    given: Iterable[str],
    drawn: Sequence[str] | None,
    guidance: float | None,
    *,
    givable: Sequence[str],
    drawable: Sequence[str],
) -> None:
    """Check what a method is asked to draw: nothing that is given may be left unused.

    Args:
        given: Known modalities.
        drawn: Modalities to draw; `None` for the method's own.
        guidance: Guidance asked for, which needs something given; `None` for the method's own.
        givable: Modalities that the method can be given.
        drawable: Modalities that the method can draw.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    given = set(given)
    for field, names, possible in (("given", given, givable), ("drawn", drawn or [], drawable)):
        for name in names:
            if name not in possible:
                raise ValueError(f"{field} is {name!r}: expected {' or '.join(possible) or 'nothing'} from this model")
    if drawn is not None and (not drawn or given & set(drawn)):
        raise ValueError(f"drawn is {list(drawn)}: expected some of {', '.join(drawable)} that is not given")
    if guidance is not None and not given:
        raise ValueError(f"guidance is {guidance}: expected None, as nothing is given")
    if guidance is not None:
        check_number("guidance", guidance)


def check_counts(condition: Batch, num_samples: int) -> None:
    """Check that each sample has what is given.

    Args:
        condition: Known modalities.
        num_samples: Samples to draw.

    Raises:
        ValueError: naming the modality.
    """
    for name, values in condition.items():
        if isinstance(values, Tensor) and not values.ndim:
            raise ValueError(f"{name} is a single number: expected one entry for each seed; put it into a list")
        if len(values) != num_samples:
            raise ValueError(f"{name} has {len(values)} entries, seeds has {num_samples}: expected one of each")


def check_entries(batch: Batch, names: Iterable[str], purpose: str) -> None:
    """Check that a batch has what is needed of it.

    Args:
        batch: The batch.
        names: Entries that are needed.
        purpose: What for.

    Raises:
        ValueError: naming what it does not have.
    """
    missing = [name for name in names if name not in batch]
    if missing:
        raise ValueError(f"a batch has {', '.join(batch)}: expected {' and '.join(missing)} as well, for {purpose}")


def check_trained(value: float, field: str, purpose: str) -> None:
    """Check that a model was trained for what it is asked.

    Args:
        value: Weight or share in training.
        field: Its name.
        purpose: What is asked.

    Raises:
        ValueError: if it is 0.
    """
    if value == 0:
        raise ValueError(f"{field} is 0: expected above 0 in training, for {purpose}")
