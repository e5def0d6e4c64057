"""Trains plainly, compiled, and compiled with parts that run twice: a program that `test_compile.py` runs.

python compile_worker.py FOLDER. Under pytest every function checks its types, and that would be compiled too. Graphs
run as they were captured, so that no compiler is needed.
"""

import sys
from functools import partial, partialmethod
from pathlib import Path

import torch
from torch import nn

from mmdiffusion.callbacks import Compile
from mmdiffusion.nn import Denoiser, Level
from tests.helpers import Pictures, build_method, build_trainer, weights

STEPS = 3
calls: list[bool] = []


def as_captured(graph, _):
    def run(*given):
        calls.append(torch.is_grad_enabled())
        return graph(*given)

    return run


def fit(folder, *callbacks, **options):
    denoiser = partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32, positions="learned", **options)
    method = build_method(denoiser=denoiser)
    names = list(method.state_dict())
    trainer = build_trainer(folder, *callbacks, max_steps=STEPS, limit_val_batches=1, val_check_interval=1)
    calls.clear()
    trainer.fit(method, datamodule=Pictures(8, num_train=24))
    assert list(method.state_dict()) == names
    return {"weights": weights(method), "calls": list(calls)}


def main(folder):
    Denoiser.compile = partialmethod(nn.Module.compile, backend=as_captured)
    made = {"plain": fit(folder), "compiled": fit(folder, Compile())}
    made["twice"] = fit(folder, Compile(), gradient_checkpointing=True)
    made["selective"] = fit(folder, Compile(), gradient_checkpointing="selective")
    calls.clear()
    torch.compile(lambda x: 2 * x, backend=as_captured)(torch.ones(1))
    made["later"] = {"calls": list(calls)}
    torch.save(made, folder / "made.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
