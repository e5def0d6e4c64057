"""Random weights of pretrained networks: the classes and the outer shapes of the published ones, small inside."""

import json
import string

import torch

LETTERS = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = {token: number for number, token in enumerate([*LETTERS, "!", START, END])}


def save_vq_model(path, num_blocks, num_codes=64):
    """A VQModel that halves pictures `num_blocks - 1` times."""
    from diffusers.models.autoencoders.vq_model import VQModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        VQModel(
            block_out_channels=(8,) * num_blocks,
            down_block_types=("DownEncoderBlock2D",) * num_blocks,
            up_block_types=("UpDecoderBlock2D",) * num_blocks,
            num_vq_embeddings=num_codes,
            norm_num_groups=4,
            latent_channels=4,
            vq_embed_dim=4,
        ).save_pretrained(path)


def save_autoencoder_kl(path):
    """An AutoencoderKL that makes four channels of an eighth of the side."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            latent_channels=4,
        ).save_pretrained(path)


def save_clip(path):
    """Both towers of a CLIP that knows letters, with captions of up to 77 tokens."""
    import transformers

    numbers = {"bos_token_id": WORDS[START], "eos_token_id": WORDS[END], "pad_token_id": WORDS[END]}
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    text = sizes | numbers | {"vocab_size": len(WORDS), "max_position_embeddings": 77}
    vision = sizes | {"image_size": 16, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        transformers.CLIPModel(config).save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps(WORDS))
    (path / "merges.txt").write_text("#version: 0.2\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": END}))
