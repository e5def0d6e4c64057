"""CLIP's text tower, from a folder on this machine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.codecs.frozen import FrozenNetwork
from mmdiffusion.codecs.pretrained import check_folder, load, needs
from mmdiffusion.codecs.text import Text, TextTower
from mmdiffusion.types import DataSpec


class CLIPTower(FrozenNetwork, TextTower):
    """The text tower of CLIP (Radford et al. 2021, arXiv 2103.00020), by transformers.

    Tokens are the last layer's, normalised; a caption's vector is the one at the first end-of-text token, projected
    into the space that CLIP shares with images, with length 1. A caption that is too long loses its end, and keeps its
    end-of-text token.

    Args:
        spec: The data; any captions will do.
        path: Folder with weights and tokenizer, such as a download of `openai/clip-vit-large-patch14`; the text
            tower alone, with its projection, will do.

    Raises:
        ValueError: if there are no weights or no tokenizer at `path`.
    """

    def __init__(self, spec: DataSpec, path: str) -> None:
        try:
            from transformers import CLIPTextModelWithProjection, CLIPTokenizer
        except ImportError as error:
            raise needs("pretrained", "transformers", error) from error

        check_folder(path, "model_type", ("clip", "clip_text_model"), "openai/clip-vit-large-patch14")
        network = load(CLIPTextModelWithProjection, path)
        check_tokenizer(path)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        except Exception as error:
            raise ValueError(f"path is {path}: its tokenizer cannot be read; {error}") from error
        config = network.config
        super().__init__(config.hidden_size, config.projection_dim, config.max_position_embeddings)
        self.tokenizer = tokenizer
        self.hold(network)

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Text:
        """Read captions; see `TextTower`."""
        if not captions:
            raise ValueError("captions is empty: expected at least one")
        for caption in captions:
            if not caption.strip():
                raise ValueError("caption is empty: expected at least one word")
        device = self.network.text_projection.weight.device
        ids = self.tokenize(captions).to(device)
        is_end = ids == self.tokenizer.eos_token_id
        end = is_end.int().argmax(1)  # the first: the tokenizer may fill up with the same token
        mask = torch.arange(ids.shape[1], device=device) <= end[:, None]
        with torch.autocast(device.type, enabled=False):
            tokens = self.network.text_model(ids, attention_mask=mask.long()).last_hidden_state
            summary = self.network.text_projection(tokens[torch.arange(len(ids), device=device), end])
        return Text(tokens.float(), mask, F.normalize(summary.float(), dim=-1))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Numbers of the tokens (b, max_tokens), begin and end among them."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.max_tokens}
        return self.tokenizer(list(captions), return_tensors="pt", **options)["input_ids"]


def check_tokenizer(path: str) -> None:
    """Check that a folder holds a tokenizer: without its files the library makes one that knows no word.

    Raises:
        ValueError: naming what is missing.
    """
    missing = [name for name in ("vocab.json", "merges.txt") if not (Path(path) / name).is_file()]
    if missing and not (Path(path) / "tokenizer.json").is_file():
        raise ValueError(f"path is {path}: its tokenizer cannot be read; tokenizer.json is missing, and {missing[0]}")
