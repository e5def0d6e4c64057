"""GradientShare: how much of the gradient a term of the loss makes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.data.base import DataModule
from mmdiffusion.methods.base import Method
from mmdiffusion.sharding import Shards
from mmdiffusion.types import Batch


class GradientShare(CheckedCallback):
    """Logs |gradient of a term with its weight| / |gradient of the loss|, as `gradient/<term>`.

    A term counts as it enters the loss (`Method.weighed`), however it is logged: one with weight 0 has the share 0.
    Gradients may point apart, so shares need not add up to 1.

    A term's size says little about what it changes: a contrastive term may be a tenth of the loss and move nothing. The
    loss of the batch at hand is computed a second time, with the same noise, before the step; training is not touched.

    Args:
        terms: Names of the method's terms, as in its log without `train/`; those that are parts of the loss.
        every_n_steps: Batches between two measurements, each of which costs about one step.
    """

    fit_only = True

    def __init__(self, terms: list[str], every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: expected at least 1")
        self.terms = terms
        self.every_n_steps = every_n_steps

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check that gradients can be taken, which need whole weights; see `CheckedCallback`."""
        if isinstance(trainer.strategy, Shards):
            raise ValueError(
                "the callback GradientShare is set, strategy is Shards: expected whole weights, whose gradients it "
                "compares; leave it out, or train with configs/overlays/ddp.yaml"
            )

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Measure, when it is due."""
        position = trainer.fit_loop.total_batch_idx
        if position % self.every_n_steps:
            return
        assert isinstance(pl_module, Method)
        with undisturbed(pl_module):
            with trainer.precision_plugin.forward_context():
                losses = pl_module.losses(batch, pl_module.generator("train", position))
                parts = pl_module.weighed(losses)
            shares = gradient_shares(losses["loss"], parts, self.terms, list(pl_module.parameters()))
        for name, share in shares.items():
            pl_module.log(f"gradient/{name}", share, sync_dist=True)


def gradient_shares(
    loss: Tensor, parts: dict[str, Tensor], terms: Sequence[str], parameters: list[nn.Parameter]
) -> dict[str, float]:
    """Norm of each term's gradient over that of the loss.

    Args:
        loss: What is minimised, with its graph.
        parts: What it is the sum of: terms with their weights, with their graph.
        terms: Names of the terms.
        parameters: The gradient's axes; frozen ones do not count.

    Raises:
        ValueError: if a term is no part of the loss.
    """
    missing = [name for name in terms if name not in parts]
    if missing:
        raise ValueError(f"terms has {', '.join(missing)}: expected some of {', '.join(parts)}, the parts of the loss")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    total = gradient_norm(loss, trained)
    return {name: gradient_norm(parts[name], trained) / total for name in terms}


def gradient_norm(term: Tensor, parameters: list[nn.Parameter]) -> float:
    """Euclidean norm of a gradient; 0 for a term that no parameter changes."""
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.double().square().sum() for g in gradients if g is not None]).sum().sqrt())


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Let a module compute as it does in training, then take back what it remembers of it: banks, queues, averages."""
    kept = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for owner, name, buffer, before in kept:
            setattr(owner, name, buffer.copy_(before))  # the same one: some put another in its place
