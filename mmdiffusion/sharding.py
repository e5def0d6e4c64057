"""Weights in shards: each process keeps a part of every weight, of its gradient and of the optimizer's state."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils._pytree import tree_map

ELEMENTWISE = (SGD, Adam, AdamW)
"""Optimizers that step each number by itself, so that a shard trains as it would in the whole weight."""


class Shards(ModelParallelStrategy):
    """A training whose weights are parted among all processes (FSDP2; Zhao et al. 2023, arXiv 2304.11277).

    A method says which of its parts are gathered by themselves. Checkpoints hold whole tensors, as those of any other
    training do; tests and predictions have whole weights in every process.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """All processes share in every weight."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def shard(self, module: nn.Module, units: Iterable[nn.Module], method: str) -> None:
        """Part the weights of a module, which are gathered while one of its methods runs.

        Args:
            module: Its weights, beside those of `units`, are gathered at once.
            units: Parts whose weights are gathered only while they run, one at a time.
            method: Name of the method; it computes what gradients are taken of.
        """
        mesh = self.device_mesh["data_parallel"]
        for unit in units:
            fully_shard(unit, mesh=mesh)
        numbers = {parameter for parameter in module.parameters() if not parameter.ndim}  # there is nothing to part
        for number in numbers:
            number.register_post_accumulate_grad_hook(share_gradient)
        # resharded after every pass: outside of one, a parameter is always a shard
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=numbers)
        register_fsdp_forward_method(module, method)

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers.

        Raises:
            ValueError: for one that needs whole weights.
        """
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if type(optimizer) not in ELEMENTWISE:
                raise ValueError(
                    f"optimizer is {type(optimizer).__name__}, strategy is Shards: expected AdamW, Adam or SGD, which "
                    "need no whole weights; choose one of them, or train with configs/overlays/ddp.yaml"
                )

    # Checkpoints -----------------------------------------------------------------------------------------------

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Optimizers are restored from the checkpoint as a trainer restores them."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights."""
        assert self.lightning_module is not None
        return whole(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """What an optimizer knows, of whole weights."""
        return whole(optimizer.state_dict())

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as it is."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Take shards of the whole weights."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: part(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Take shards of what the optimizers knew."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {name: part(value, parameters[number]) for name, value in known.items()}
                for number, known in saved["state"].items()
            }
            optimizer.load_state_dict(saved | {"state": state})


# Tensors -------------------------------------------------------------------------------------------------------


def whole(tree: Any) -> Any:
    """Nested dictionaries and lists for a checkpoint: what is in shards joined, in the memory of the computer.

    Every process has to ask. One tensor at a time is whole on a device: all of them together may not fit.

    Args:
        tree: Tensors, in shards or not, and plain data.
    """
    return tree_map(lambda leaf: leaf.full_tensor().cpu() if isinstance(leaf, DTensor) else leaf, tree)


def part(value: Any, like: Any) -> Any:
    """This process's shard of a whole tensor, where another one is parted; all else as it is.

    Args:
        value: The tensor; every process has it.
        like: A weight.
    """
    if not isinstance(like, DTensor) or isinstance(value, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


# Gradients -----------------------------------------------------------------------------------------------------


def share_gradient(parameter: Tensor) -> None:
    """Make a gradient the mean over processes, as it is for weights in shards."""
    assert parameter.grad is not None
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()


def by_kind(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters with a gradient, those in shards apart from the others, which no operation takes at once."""
    kinds: tuple[list[Tensor], list[Tensor]] = [], []
    for parameter in parameters:
        if parameter.grad is not None:
            kinds[isinstance(parameter, DTensor)].append(parameter)
    return [kind for kind in kinds if kind]


def gradient_norm(parameters: Iterable[Tensor], order: float = 2.0) -> Tensor:
    """Norm of the whole gradient, the same in every process; every process has to ask.

    Args:
        parameters: Whole ones and shards.
        order: 2 for the Euclidean norm, infinity for the largest entry.
    """
    norms = [get_total_norm([p.grad for p in kind if p.grad is not None], order) for kind in by_kind(parameters)]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return norms[0] if len(norms) == 1 else get_total_norm(norms, order)


def clip_gradient(parameters: Sequence[Tensor], most: float) -> None:
    """Scale a gradient down to a norm.

    Args:
        parameters: Whole ones and shards.
        most: The norm; a smaller gradient stays as it is.
    """
    norm = gradient_norm(parameters)
    for kind in by_kind(parameters):
        clip_grads_with_norm_(kind, most, norm)


# Whole weights -------------------------------------------------------------------------------------------------


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Keep whole weights in every process, each of which may then run the module as often as it likes.

    Args:
        module: With or without shards.
    """
    sharded = [one for one in module.modules() if isinstance(one, FSDPModule)]
    for one in sharded:
        one.unshard()
        one.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for one in sharded:
            one.set_reshard_after_forward(True, recurse=False)
            one.reshard()
