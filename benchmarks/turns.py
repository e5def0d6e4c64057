"""Timing variants in turns, so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping


def seconds_in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by variant, after one round that does not count.

    Args:
        runs: Variants by name.
        rounds: Rounds that count.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds
