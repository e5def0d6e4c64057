"""What every method shares: steps, seeding, the optimizer and its schedule."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmdiffusion import __version__
from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.methods.checks import check_entries, check_names
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.layers import Block
from mmdiffusion.optimizers import split_matrices
from mmdiffusion.resuming import FORMAT, KEY, position, settle
from mmdiffusion.seeding import step_generator
from mmdiffusion.sharding import Shards, clip_gradient
from mmdiffusion.types import Batch


class ParameterGroup(NamedTuple):
    """Parameters that train alike.

    Attributes:
        parameters: The parameters.
        rate: Their learning rate, as a multiple of the optimizer's.
    """

    parameters: list[nn.Parameter]
    rate: float = 1.0


class Method(LightningModule, ABC):
    """One paper: how it trains and how it samples.

    Random numbers of training are drawn from (seed, rank, batch), those of sampling from (seed, sample index); the
    global random state is never used.

    Args:
        optimizer: Makes the optimizer from the trained parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls to zero along a half cosine.
        seed: Seed of every draw in training and sampling.
        givable: Modalities that `sample` can be given.
        drawable: Modalities that `sample` draws when nothing is given.
        makes: Entries of a batch that `sample` returns when nothing is given; `None` for those of `drawable`.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        warmup_steps: int,
        seed: int,
        *,
        givable: tuple[str, ...],
        drawable: tuple[str, ...],
        makes: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps is {warmup_steps}: expected 0 or more")
        self.make_optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.seed = seed
        self.givable, self.drawable = givable, drawable
        self.makes = drawable if makes is None else makes

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Named terms of the loss, means over the batch, with their graph; `loss` is what is minimised.

        Terms may be logged as they are, without their weights; `weighed` says how they enter `loss`.

        Args:
            batch: A batch of the data module.
            generator: Source of every draw, on the module's device.
        """

    def weighed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parts that `loss` is the sum of: terms with their weights. What only informs is no part.

        Here, all terms as they are. A method whose terms carry no weights, or that logs more, says otherwise.

        Args:
            terms: What `losses` returns, with or without `loss`.
        """
        return {name: term for name, term in terms.items() if name != "loss"}

    def summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms, and `loss`, the sum of their weighed parts.

        Args:
            terms: What is logged, without `loss`.
        """
        return {"loss": reduce(torch.add, self.weighed(terms).values())} | terms

    @abstractmethod
    def sample(
        self,
        condition: Batch,
        *,
        seeds: Sequence[int],
        drawn: Sequence[str] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Batch:
        """Draw samples.

        Args:
            condition: Known modalities; empty when nothing is given.
            seeds: One number per sample, usually its index: the sample depends on it and on the method's seed alone.
            drawn: Modalities to draw; `None` draws all that are not given.
            steps: Sampling steps; `None` takes the method's own.
            guidance: Guidance scale; `None` takes the method's own.

        Returns:
            A batch with the drawn and the given modalities.
        """

    def check_request(
        self,
        given: Collection[str],
        drawn: Sequence[str] | None,
        guidance: float | None = None,
    ) -> None:
        """Check all of a request that needs no values: before a training, and by `sample` again.

        Args:
            given: Names of known modalities.
            drawn: Modalities to draw; `None` draws all that are not given.
            guidance: Guidance scale; `None` takes the method's own.

        Raises:
            ValueError: naming what the method cannot be given or cannot draw, or was not trained for.
        """
        check_names(given, drawn, guidance, givable=self.givable, drawable=self.drawable)

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Settings that a figure depends on, beside the weights: how samples are drawn."""

    def encoders(self) -> list[Encoder]:
        """Frozen weights that encode batches: what `mmdiffusion prepare` may encode once."""
        return [part for part in self.modules() if isinstance(part, Encoder) and not part.is_plain]

    def generator(self, purpose: str, batch: int) -> torch.Generator:
        """Source of the draws of one step of this process.

        Args:
            purpose: "train" or "validation".
            batch: Number of the batch in the run.
        """
        rank, world_size = self.global_rank, self.trainer.world_size
        return step_generator(self.seed, purpose, batch, rank=rank, world_size=world_size, device=self.device)

    # Lightning -------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Part the weights among processes, where the trainer's strategy does so (`configs/overlays/fsdp.yaml`)."""
        strategy = self.trainer.strategy
        if isinstance(strategy, Shards) and self.trainer.state.fn == TrainerFn.FITTING:
            strategy.shard(self, self.gathered_alone(), "losses")

    def gathered_alone(self) -> Iterator[nn.Module]:
        """Parts that run by nothing but their `forward`, so that their weights can be gathered for just that time."""
        for denoiser in self.modules():
            if isinstance(denoiser, Denoiser) and denoiser.stream is None:  # a stream looks into the blocks
                yield from (part for part in denoiser.modules() if isinstance(part, Block))

    def prepare_data(self) -> None:
        """Check that the batches of a fit are large enough; Lightning calls this before anything is written."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if self.trainer.state.fn == TrainerFn.FITTING and hasattr(data, "smallest_batch"):
            self.check_batch(data.smallest_batch())

    def check_batch(self, size: int) -> None:
        """Check that a batch is large enough for the losses.

        Args:
            size: Samples of the smallest batch.

        Raises:
            ValueError: if the losses compare more samples than that.
        """

    def on_fit_start(self) -> None:
        """Check the precision, and say how large the model is.

        Raises:
            ValueError: for a precision in which training would go wrong.
        """
        check_precision(self.trainer.precision, self.trainer.optimizers, self.trainer.gradient_clip_val)
        num_parameters = sum(p.numel() for p in self.parameters() if p.requires_grad)
        rank_zero_info(f"{type(self).__name__}: {num_parameters / 1e6:.2f} M parameters train")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training step with noise from (seed, rank, number of the batch in the run)."""
        terms = self.losses(batch, self.generator("train", self.trainer.fit_loop.total_batch_idx))
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say where training goes on, and who says so."""
        settle(checkpoint["loops"], position(self.trainer), self.trainer.global_step)
        checkpoint[KEY] = {"version": __version__, "format": FORMAT}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss with the same noise at every validation, so that its curve compares one step with another."""
        terms = self.losses(batch, self.generator("validation", batch_idx))
        size = len(batch["index"])
        self.log_dict({f"val/{name}": value for name, value in terms.items()}, batch_size=size, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: tests are what the Evaluate callback measures."""

    @property
    def predicted_for(self) -> tuple[str, ...]:
        """Modalities of a batch that `predict` draws a sample for: all that can be given."""
        return self.givable

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Draw one sample for each condition of the batch; the rest of the batch, its targets, stays unseen.

        Raises:
            ValueError: if the batch lacks a condition, or the numbers of its samples, which seed the noise.
        """
        check_entries(batch, [*self.predicted_for, "index"], "samples that are drawn for it")
        seeds = [int(index) for index in batch["index"]]
        return self.sample({name: batch[name] for name in self.predicted_for}, seeds=seeds)

    def parameter_groups(self) -> list[ParameterGroup]:
        """What trains, in groups with settings of their own."""
        return [ParameterGroup([p for p in self.parameters() if p.requires_grad])]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over everything that trains, with its schedule by step."""
        optimizer = self.make_optimizer(list(optimizer_groups(self, self.parameter_groups())))
        for made in optimizer.param_groups:
            made["lr"] *= made["rate"]
            made["weight_decay"] *= made["decays"]
        num_steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, self.warmup_steps, num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip all gradients; Lightning's own refuses fused optimizers, which only scaled gradients would upset."""
        if gradient_clip_val and gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            clip_gradient(list(self.parameters()), gradient_clip_val)


def optimizer_groups(module: nn.Module, groups: Iterable[ParameterGroup]) -> Iterator[dict[str, Any]]:
    """Groups as optimizers take them: matrices apart from the rest, and numbers on their own, which do not decay.

    Args:
        module: Holds the parameters.
        groups: What trains alike.
    """
    for group in groups:
        matrices, others = split_matrices(module, group.parameters)
        for is_matrix, decays, parameters in (
            (True, True, matrices),
            (False, True, [parameter for parameter in others if parameter.ndim]),
            (False, False, [parameter for parameter in others if not parameter.ndim]),
        ):
            if parameters:
                yield {"params": parameters, "is_matrix": is_matrix, "decays": decays, "rate": group.rate}


def check_precision(precision: str, optimizers: Sequence[Optimizer] = (), clip: float | None = None) -> None:
    """Check that weights and tables stay float32, and that scaled gradients are not clipped before they are unscaled.

    Args:
        precision: Precision of the trainer.
        optimizers: Optimizers that train.
        clip: Norm or value that gradients are clipped to.

    Raises:
        ValueError: naming the setting and what was expected.
    """
    if precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise ValueError(f"precision is {precision}: expected 32-true, bf16-mixed or 16-mixed")
    is_fused = any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in optimizers)
    if precision == "16-mixed" and is_fused and clip:
        raise ValueError("precision is 16-mixed, the optimizer is fused: expected fused: false, to clip true gradients")


def warmup_cosine(step: int, warmup_steps: int, num_steps: int) -> float:
    """Factor of the learning rate: linear up to 1, then half a cosine down to 0 (Loshchilov & Hutter 2017).

    Args:
        step: Steps taken.
        warmup_steps: Length of the rise.
        num_steps: Length of the training.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
