"""CDCD: conditional discrete contrastive diffusion (Zhu et al., ICLR 2023, arXiv 2206.07771).

Tokens of a modality (a picture, a piece of music) are masked and replaced step by step; the network names the clean
tokens from what is left and from a condition (a class, a dance, a caption). Beside the variational bound, contrastive
terms ask that the condition fits its own tokens better than others.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.contrast import Contrast, Flavour
from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.types import Batch, Condition, DataSpec, Spec
