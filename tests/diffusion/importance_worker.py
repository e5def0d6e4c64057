"""One process of `test_importance.py`: sees its share of fixed losses and writes what it then knows.

python importance_worker.py RANK WORLD STORE OUT
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from mmdiffusion.diffusion import ImportanceTimes

NUM_STEPS = 7
SPLIT = 5  # of eight losses a round the first process sees five, the second three


def losses():
    """Twenty rounds of eight steps with their losses; repeats within a round are many."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randint(1, NUM_STEPS + 1, (8,), generator=generator), torch.rand(8, generator=generator) * 100)
        for _ in range(20)
    ]


def history(mine):
    """What a process that sees the slice `mine` of every round knows afterwards."""
    times = ImportanceTimes(NUM_STEPS)
    for time, loss in losses():
        times.update(time[mine], loss[mine])
    return {name: buffer.tolist() for name, buffer in times.named_buffers()}


def main():
    rank, world, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    found = history(slice(None, SPLIT) if rank == 0 else slice(SPLIT, None))
    Path(out).write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
