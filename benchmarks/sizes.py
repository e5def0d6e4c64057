"""Size of an experiment: its parameters, and the operations and memory of one training step; no data, no GPU.

    python -m benchmarks.sizes configs/cdcd/aist.yaml [--samples 2] [--section.key VALUE ...]

The experiment is built by the parser of the command line and trained for one step on random numbers of its own shapes.
Products with weights run on the meta device, which computes shapes only; what is between them is small, and runs as it
is. Counted are the products and the attention of one forward and one backward pass, 2 operations per multiply-add, and
the bytes of all tensors that the backward pass keeps. Weights of frozen networks that a configuration names by path
must be there; random ones of the same sizes do as well.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.callbacks import EMA
from mmdiffusion.cli import quieten
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.methods.base import Method
from mmdiffusion.types import (
    AttributesSpec,
    Batch,
    DataSpec,
    FeatureSpec,
    ImageSpec,
    LabelSpec,
    MaskedSpec,
    MotionFeatureSpec,
    MotionSpec,
    MusicSpec,
    NumberSpec,
    SegmentationSpec,
    Spec,
    TextSpec,
    TokenSpec,
)

GB = 1e9
OPTIMIZER_STATES = 2
"""Numbers of AdamW beside each weight."""


def random_batch(spec: DataSpec, size: int) -> Batch:
    """A batch of random numbers.

    Args:
        spec: Its modalities.
        size: Samples.
    """
    generator = torch.Generator().manual_seed(0)
    batch = {name: _random(part, size, generator) for name, part in spec.items()}
    return batch | {"index": torch.arange(size)}


def _random(part: Spec, size: int, generator: torch.Generator) -> Tensor | list[str]:
    if isinstance(part, TextSpec):
        return [" ".join([(part.vocabulary or ("word",))[0]] * part.max_words)] * size
    ranges = {LabelSpec: "num_classes", TokenSpec: "num_codes"}
    if isinstance(part, LabelSpec | TokenSpec):
        shape = part.grid if isinstance(part, TokenSpec) else ()
        return torch.randint(getattr(part, ranges[type(part)]), (size, *shape), generator=generator)
    if isinstance(part, NumberSpec):
        return torch.arange(size)
    if isinstance(part, SegmentationSpec):
        return torch.randint(len(part.names), (size, part.size, part.size), generator=generator)
    if isinstance(part, AttributesSpec):
        return torch.zeros(size, part.num_objects, len(part.names), dtype=torch.int64)
    return torch.rand(size, *_shape(part), generator=generator) * 2 - 1


def _shape(part: Spec) -> tuple[int, ...]:
    match part:
        case ImageSpec():
            return part.channels, part.size, part.size
        case MaskedSpec():
            return part.channels + 1, part.size, part.size
        case FeatureSpec():
            return part.shape
        case MotionSpec():
            return part.num_frames, 3 * part.num_joints
        case MotionFeatureSpec():
            return part.num_frames, part.num_features
        case MusicSpec():
            return (part.num_samples,)
    raise AssertionError(f"no random numbers for {part}")


# On the meta device ----------------------------------------------------------------------------------------------


class _Moved(Function):
    """A tensor without its numbers, elsewhere; its gradient goes back the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: str, dtype: torch.dtype) -> Tensor:
        ctx.origin = x.device, x.dtype
        return torch.zeros(x.shape, device=device, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        device, dtype = ctx.origin
        return torch.zeros(grads[0].shape, device=device, dtype=dtype), None, None


def move_products(method: nn.Module, dtype: torch.dtype) -> None:
    """Let every linear map and convolution of a method run on the meta device.

    Args:
        method: Its modules are changed in place.
        dtype: Type of the products, that of the trainer's precision.
    """
    for module in method.modules():
        if isinstance(module, nn.Linear | _ConvNd):
            module.to("meta", dtype)
            module.forward = _elsewhere(module.forward, dtype)


def _elsewhere(forward: Any, dtype: torch.dtype) -> Any:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            made = forward(_Moved.apply(x, "meta", dtype))
        return made if x.is_meta else _Moved.apply(made, "cpu", dtype)

    return run


def measure(method: Method, spec: DataSpec, samples: int, dtype: torch.dtype) -> tuple[int, int]:
    """One forward and one backward pass.

    Args:
        method: The method; its products are moved to the meta device for good.
        spec: The modalities of its data.
        samples: Samples of the batch.
        dtype: Type of the products.

    Returns:
        Operations, and bytes kept for the backward pass.
    """
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    move_products(method, dtype)
    counter = FlopCounterMode(display=False)
    with counter, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        with saved_tensors_hooks(keep, lambda x: x):
            loss = method.losses(random_batch(spec, samples), torch.Generator().manual_seed(0))["loss"]
        num_bytes = sum(kept.values())
        loss.backward()
    return counter.get_total_flops(), num_bytes


# The report ------------------------------------------------------------------------------------------------------


def build(config: str, options: list[str]) -> MMDiffusionCLI:
    """An experiment as the command line builds it, with nothing run.

    Args:
        config: Its configuration.
        options: Further settings, as on the command line.
    """
    quieten()
    with TemporaryDirectory() as folder, mock.patch.object(sys, "argv", ["mmdiffusion"]):
        words = ["--config", config, *options, "--trainer.logger=false", "--trainer.accelerator=cpu"]
        return MMDiffusionCLI(Path(folder), words, execute=False)


def report(cli: MMDiffusionCLI, samples: int) -> list[str]:
    """Lines about the size of an experiment.

    Args:
        cli: The experiment, built.
        samples: Samples of the batch that is measured; memory and operations are scaled from it to the batch size.
    """
    method, data, trainer = cli.model, cli.datamodule, cli.trainer
    assert isinstance(method, Method)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in method.named_children()}
    has_average = any(isinstance(callback, EMA) for callback in trainer.callbacks)  # pyright: ignore
    copies = 1 + 1 + OPTIMIZER_STATES + has_average
    dtype = torch.bfloat16 if trainer.precision == "bf16-mixed" else torch.float32
    flops, kept = measure(method, data.spec, samples, dtype)
    size, activations = data.batch_size, kept / samples * data.batch_size
    named = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parts.items() if count)
    memory = 4 * copies * trained + activations
    return [
        f"parameters   {trained / 1e6:.2f} M train ({named})",
        f"operations   {flops / samples / 1e9:.1f} GFLOP a sample, {flops / samples * size / 1e9:.0f} a step of {size}",
        f"memory       {memory / GB:.1f} GB a step of {size}: {copies} float32 copies of the weights "
        f"{4 * copies * trained / GB:.1f}, kept for the backward pass {activations / GB:.1f} ({dtype})",
    ]


def main() -> None:
    """Print the size of one experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--samples", type=int, default=2, help="samples of the batch that is measured")
    known, options = parser.parse_known_args()
    for line in report(build(known.config, options), known.samples):
        Console(soft_wrap=True, highlight=False).print(line)


if __name__ == "__main__":
    main()
