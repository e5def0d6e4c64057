"""Shape annotations are checked at run time: the hook has to stand before the first import of the package."""

import jaxtyping
import torch

jaxtyping.install_import_hook("mmdiffusion", "beartype.beartype")
torch.set_num_threads(1)
