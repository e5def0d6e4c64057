"""Whether a run goes on as what it was: what differs between the settings it was begun with and those of now."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmdiffusion.messages import shortened

FIXED = (
    "seed_everything",
    "model",
    "data",
    "cache",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
)
"""Settings that decide what is trained, on what, in which order."""
FREE = ("num_workers", "eval_batch_size", "gradient_checkpointing")
"""Last words of settings that may change in any section: who reads files, how much at a time, what a step keeps."""
PLACES = ("root", "folder", "path")
"""Last words of settings that say where files lie: these may lie elsewhere now, where there were some before."""
LENGTHS = ("trainer.max_steps", "trainer.max_epochs")
"""How long a training is, which the learning rate depends on."""
UNSAID = ("ckpt_path", "config")
"""Settings of a command, not of a run."""


class Change(NamedTuple):
    """One setting that differs.

    Attributes:
        name: Its dotted name.
        before: Its value when the run was begun; `None` where it was not set.
        now: Its value now.
    """

    name: str
    before: Any
    now: Any

    @property
    def is_fixed(self) -> bool:
        """Whether a training with it would be another one."""
        parts = self.name.split(".")
        is_of_fixed = any(parts[: len(fixed.split("."))] == fixed.split(".") for fixed in FIXED)
        is_moved = parts[-1] in PLACES and None not in (self.before, self.now)
        return is_of_fixed and parts[-1] not in FREE and not is_moved

    def __str__(self) -> str:
        remark = ": the learning rate follows the new length from here" if self.name in LENGTHS else ""
        return f"{self.name} was {shortened(self.before)}, now {shortened(self.now)}{remark}"


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """What differs between two configurations.

    Args:
        before: Settings a run was begun with.
        now: Settings it is to go on with.
    """
    old, new = (dict(_leaves(config)) for config in (before, now))
    names = [name for name in dict.fromkeys([*old, *new]) if name.split(".")[0] not in UNSAID]
    found = [Change(name, old.get(name), new.get(name)) for name in names]
    return [change for change in found if change.before != change.now]


def check_changes(run: str, before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Check that a run goes on as what it was.

    Args:
        run: Its folder.
        before: Settings it was begun with.
        now: Settings it is to go on with.

    Returns:
        What differs and may.

    Raises:
        ValueError: naming a setting that may not.
    """
    found = changes(before, now)
    fixed = [change for change in found if change.is_fixed]
    if fixed:
        more = f" (and {len(fixed) - 1} more)" if len(fixed) > 1 else ""
        raise ValueError(
            f"--run is {run}, a run of other settings: {fixed[0]}{more}. Expected those it was begun with: "
            f"`mmdiffusion fit --run {run}` takes them. Another training needs another folder; the callback StartFrom "
            "starts it with the weights of this one"
        )
    return found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
