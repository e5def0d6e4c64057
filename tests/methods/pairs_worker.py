"""One process of `test_pairs.py`: compares its half of the pairs and writes loss and gradients. It imports little.

python pairs_worker.py RANK FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn import functional as F

from mmdiffusion.methods.pairs import EarlierTexts, compare, numbers

CAPTIONS = ["a one", "a two", "A  one", "a three", "a four", "a two"]


def parts():
    """A linear map that makes image embeddings, its inputs, texts that captions decide, and a scale; float64."""
    generator = torch.Generator().manual_seed(0)
    weight, inputs = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((5, 4), (6, 4)))
    names = sorted({" ".join(caption.lower().split()) for caption in CAPTIONS})
    table = F.normalize(torch.randn(len(names), 5, generator=generator, dtype=torch.float64), dim=-1)
    texts = torch.stack([table[names.index(" ".join(caption.lower().split()))] for caption in CAPTIONS])
    return weight.requires_grad_(), inputs, texts, torch.tensor(3.0, dtype=torch.float64, requires_grad=True)


def queue(size=4):
    """A queue that holds the text of the second caption and one that no caption says, and has room for more."""
    earlier = EarlierTexts(size, 5).double()
    other = F.normalize(torch.arange(1.0, 6.0, dtype=torch.float64), dim=0)
    earlier.push(
        torch.stack([parts()[2][1], other]), torch.tensor([*numbers(CAPTIONS[1:2], torch.device("cpu")).tolist(), -1])
    )
    return earlier


def compared(rows, earlier=None):
    """Mean loss of some pairs, with its gradients, what was right, and the queue after it."""
    weight, inputs, texts, scale = parts()
    images = F.normalize(inputs[rows] @ weight.T, dim=-1)
    made = compare(images, texts[rows], CAPTIONS[rows], scale, earlier)
    gradients = torch.autograd.grad(made.loss.mean(), [weight, scale])
    state = {} if earlier is None else earlier.state_dict()
    figures = {"loss": made.loss.detach(), "gradients": gradients, "right": made.is_right, "same": made.num_same}
    return figures | {"queue": state}


def main(rank, folder):
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    torch.save({"alone": compared(rows), "earlier": compared(rows, queue())}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
