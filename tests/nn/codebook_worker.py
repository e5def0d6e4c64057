"""One process of `test_quantiser.py`: trains its half of a codebook and writes it. It imports little, to start fast.

python codebook_worker.py RANK FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from mmdiffusion.nn.quantiser import Quantiser


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(num_codes=6, revive_below=0.0, decay=0.9):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        quantiser = Quantiser(num_codes, 3, decay, revive_below)
    book = torch.randn(num_codes, 3, generator=generator(7))
    with torch.no_grad():
        quantiser.lookup.codebook = book
        quantiser.lookup._codebook.embed_avg.copy_(book[None])
    return quantiser


def encodings(size=4, seed=0):
    return torch.randn(size, 10, 3, generator=generator(seed))


def trained(revive_below, rank):
    quantiser = build(revive_below=revive_below).train()
    for step in range(3):
        quantiser(encodings(seed=step)[2 * rank : 2 * rank + 2], generator(10 * step + rank))
    return quantiser.state_dict()


def main(rank, folder):
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.save([trained(revive_below, rank) for revive_below in (0.0, 1e6)], folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
