"""CLIP's text tower: transformers' own embeddings, from a tiny model with a tiny vocabulary."""

import copy
import json
import logging
import string

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.codecs import CLIPTower
from mmdiffusion.types import TextSpec
from tests.helpers import generator

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")

SPEC = {"caption": TextSpec(20)}
MERGES = ["r e", "re d</w>"]
LETTERS = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase), "re", "red</w>"]
START, END, OTHER = "<|startoftext|>", "<|endoftext|>", "!"
WORDS = {token: number for number, token in enumerate([*LETTERS, OTHER, START, END])}  # the end has the last number
CAPTIONS = ["a red cat", "Red", "ab c", "red red red red"]
LONG = "a b c d e f g h i j k"
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "bos_token_id": WORDS[START],
    "eos_token_id": WORDS[END],
    "pad_token_id": WORDS[END],
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def write_words(path, pad=END):
    (path / "vocab.json").write_text(json.dumps(WORDS))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": pad}))


def save(path, kind="CLIPTextModelWithProjection", config=None, pad=END):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config or transformers.CLIPTextConfig(**TEXT))
        with torch.no_grad():  # the library's own start leaves biases at zero and vectors alike
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(path)
    write_words(path, pad)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("clip"))


@torch.no_grad()
def theirs(path, caption, **options):
    """Last layer (n, d) and embedding (e,) of one caption without filling, by the library."""
    model = transformers.CLIPTextModelWithProjection.from_pretrained(path).eval()
    ids = transformers.CLIPTokenizer.from_pretrained(path)([caption], return_tensors="pt", **options)["input_ids"]
    made = model(ids)
    return made.last_hidden_state[0], F.normalize(made.text_embeds[0], dim=-1)


def check_theirs(path, captions=CAPTIONS):
    text = CLIPTower(SPEC, path)(captions)
    for row, caption in enumerate(captions):
        tokens, summary = theirs(path, caption)
        assert text.mask[row].tolist() == [i < len(tokens) for i in range(8)]
        torch.testing.assert_close(text.tokens[row, : len(tokens)], tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text.summary[row], summary, atol=1e-5, rtol=1e-5)
    return text


def test_it_is_the_library_s(folder):
    text, tower = check_theirs(folder), CLIPTower(SPEC, folder)
    assert (tower.width, tower.summary_width, tower.max_tokens) == (16, 12, 8)
    assert text.mask.sum(1).tolist() == [7, 3, 5, 6]
    torch.testing.assert_close(text.summary.norm(dim=-1), torch.ones(4))
    assert not torch.allclose(text.summary[0], text.summary[1], atol=0.05)


def test_a_filling_other_than_the_end_makes_no_difference(tmp_path, folder):
    path = save(tmp_path, pad=OTHER)
    tower = CLIPTower(SPEC, path)
    assert tower.tokenize(["red"]).tolist() == [[WORDS[START], WORDS["red</w>"], WORDS[END], *[WORDS[OTHER]] * 5]]
    text, own = tower(CAPTIONS), CLIPTower(SPEC, folder)(CAPTIONS)
    assert torch.equal(text.mask, own.mask)
    torch.testing.assert_close(text.summary, own.summary)
    torch.testing.assert_close(text.tokens[text.mask], own.tokens[own.mask])


def test_the_first_end_is_read_where_filling_is_the_same_token(folder):
    tower = CLIPTower(SPEC, folder)
    ids = tower.tokenize(["red"])
    assert ids.tolist() == [[WORDS[START], WORDS["red</w>"], *[WORDS[END]] * 6]]
    summary = tower(["red"]).summary[0]
    every = F.normalize(tower.network.text_projection(tower.network.text_model(ids).last_hidden_state[0]), dim=-1)
    torch.testing.assert_close(summary, every[2])
    assert (every[3:] - summary).abs().amax(1).min() > 1e-2, "the others would have been wrong"


def test_configurations_that_misname_the_end_are_read(tmp_path):
    """OpenAI's own say that token 2 is the end, which it never was; transformers then looks for the largest number."""
    check_theirs(save(tmp_path, config=transformers.CLIPTextConfig(**TEXT | {"eos_token_id": 2})))


def test_a_whole_clip_is_read(tmp_path):
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION | {"projection_dim": 12}, projection_dim=12)
    path = save(tmp_path, "CLIPModel", config)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clip"
    text, model = check_theirs(path), transformers.CLIPModel.from_pretrained(path)
    with torch.no_grad():
        hidden = model.text_model(CLIPTower(SPEC, path).tokenize(CAPTIONS)).last_hidden_state
        ends = torch.stack([hidden[row, count - 1] for row, count in enumerate(text.mask.sum(1))])
        torch.testing.assert_close(text.summary, F.normalize(model.text_projection(ends), dim=-1))


def test_the_other_tower_s_weights_are_no_news(tmp_path, caplog, capfd):
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION | {"projection_dim": 12}, projection_dim=12)
    CLIPTower(SPEC, save(tmp_path, "CLIPModel", config))
    assert "UNEXPECTED" not in caplog.text + "".join(capfd.readouterr())
    logging.getLogger("transformers").warning("heard again")
    assert "heard again" in caplog.text + "".join(capfd.readouterr())


def test_a_tokenizer_as_the_library_saves_it_is_read(tmp_path, folder):
    path = save(tmp_path)
    transformers.CLIPTokenizer.from_pretrained(path).save_pretrained(path)
    if (tmp_path / "tokenizer.json").exists():
        (tmp_path / "merges.txt").unlink()
    assert torch.equal(CLIPTower(SPEC, path)(CAPTIONS).summary, CLIPTower(SPEC, folder)(CAPTIONS).summary)


def test_a_long_caption_loses_its_end_and_keeps_the_end_token(folder):
    tower = CLIPTower(SPEC, folder)
    letters = [WORDS[letter + "</w>"] for letter in "abcdef"]
    assert tower.tokenize([LONG]).tolist() == [[WORDS[START], *letters, WORDS[END]]]
    text, fits = tower([LONG]), tower(["a b c d e f"])
    assert text.mask.all()
    assert torch.equal(text.summary, fits.summary)
    tokens, summary = theirs(folder, LONG, truncation=True, max_length=8)
    torch.testing.assert_close(text.tokens[0], tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.summary[0], summary, atol=1e-5, rtol=1e-5)


def test_a_caption_does_not_depend_on_the_others_of_its_batch(folder):
    tower = CLIPTower(SPEC, folder)
    together, alone = tower([*CAPTIONS, LONG]), tower(CAPTIONS[1:2])
    for mine, other in zip(together, alone, strict=True):
        torch.testing.assert_close(mine[1:2], other)


def test_its_weights_are_outside_of_the_model(folder):
    tower = CLIPTower(SPEC, folder)
    model = torch.nn.Sequential(tower).train().requires_grad_(True)
    assert model.state_dict() == {}
    assert not [*model.parameters(), *model.buffers()]
    assert list(tower.network.parameters())
    assert not any(parameter.requires_grad for parameter in tower.network.parameters())
    assert not any(module.training for module in tower.network.modules())
    assert not any(part.requires_grad for part in tower(CAPTIONS))


def test_it_drops_nothing_while_the_model_trains(tmp_path):
    path = save(tmp_path, config=transformers.CLIPTextConfig(**TEXT, attention_dropout=0.5))
    tower = CLIPTower(SPEC, path).train()
    assert torch.equal(tower(CAPTIONS).tokens, tower(CAPTIONS).tokens)


def test_the_precision_around_it_changes_nothing(folder):
    tower = CLIPTower(SPEC, folder)
    exact = tower(CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        inside = tower(CAPTIONS)
    for mine, other in zip(inside, exact, strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


def test_cast_weights_give_float32(folder):
    tower = CLIPTower(SPEC, folder)
    exact, cast = tower(CAPTIONS), tower.double()(CAPTIONS)
    assert next(tower.network.parameters()).dtype == torch.float64
    assert (cast.tokens.dtype, cast.summary.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(cast.summary, exact.summary, atol=1e-5, rtol=1e-5)


def test_a_copy_reads_the_same_and_has_weights_of_its_own(folder):
    tower = CLIPTower(SPEC, folder)
    other = copy.deepcopy(tower)
    assert torch.equal(other(CAPTIONS).summary, tower(CAPTIONS).summary)
    with torch.no_grad():
        other.network.text_projection.weight.copy_(torch.randn(12, 16, generator=generator()))
    assert not torch.allclose(other(CAPTIONS).summary, tower(CAPTIONS).summary, atol=0.1)


def test_loading_leaves_the_global_generator(folder):
    before = torch.get_rng_state()
    CLIPTower(SPEC, folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("caption", ["", "  \t"])
def test_an_empty_caption_is_named(folder, caption):
    with pytest.raises(ValueError, match="caption is empty: expected at least one word"):
        CLIPTower(SPEC, folder)(["a red cat", caption])


def test_what_is_no_folder_of_weights_is_named(tmp_path):
    remedy = "get one with `hf download openai/clip-vit-large-patch14"
    with pytest.raises(ValueError, match=rf"absent: expected a folder with a clip model, but .*config\.json.*{remedy}"):
        CLIPTower(SPEC, str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=f"model_type is 'bert', expected 'clip' or 'clip_text_model'; {remedy}"):
        CLIPTower(SPEC, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    with pytest.raises(ValueError, match="its weights cannot be read"):
        CLIPTower(SPEC, str(tmp_path))


def test_a_tower_without_a_projection_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"its weights lack text_projection\.weight"):
        CLIPTower(SPEC, save(tmp_path, "CLIPTextModel"))


@pytest.mark.parametrize("names", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt"]])
def test_a_missing_tokenizer_is_named(tmp_path, names):
    path = save(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=rf"its tokenizer cannot be read; tokenizer\.json is missing, and {names[0]}"):
        CLIPTower(SPEC, path)


def test_a_broken_tokenizer_is_named(tmp_path):
    path = save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[")
    (tmp_path / "vocab.json").write_text("[")
    with pytest.raises(ValueError, match=f"path is {path}: its tokenizer cannot be read"):
        CLIPTower(SPEC, path)
