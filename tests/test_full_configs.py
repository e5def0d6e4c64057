"""Configurations at the papers' sizes: they say what they need, and run on files in the same layouts, made small."""

import re

import pytest
import torch
import yaml

from tests.data.dance_files import write_archive, write_segments
from tests.small_configs import train
from tests.test_configs import FULL, build, name
from tests.test_picture_configs import NAMES as PICTURES
from tests.test_text_configs import EXPERIMENTS as TEXT

LITTLE = {"trainer.precision": "32-true", "data.init_args.batch_size": 2, "data.init_args.eval_batch_size": 2}


def small_encodec(folder):
    """The codec of the configurations with few channels: its rate, its hop and its two codebooks of 1,024."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.EncodecConfig(hidden_size=8, num_filters=2, num_lstm_layers=1)
        model = transformers.EncodecModel(config)
        for layer in model.quantizer.layers:
            layer.codebook.embed.copy_(torch.randn_like(layer.codebook.embed))
    model.save_pretrained(folder)
    return folder


def small_dance_network(folder):
    level = {"width": 16, "depth": 1, "heads": 2}
    return {
        "model.init_args.codec.init_args.path": small_encodec(folder / "encodec"),
        "model.init_args.conditioner.init_args.width": 16,
        "model.init_args.conditioner.init_args.num_features": 48,
        "model.init_args.conditioner.init_args.channels": [8, 8],
        "model.init_args.token_width": 16,
        "model.init_args.denoiser.init_args.levels": [level],
        "data.init_args.num_workers": 0,
    }


def aist(folder):
    write_archive(folder / "archive" / "aist_plusplus_final", rate=24000)
    return small_dance_network(folder) | {"data.init_args.root": folder / "archive"}


def tiktok(folder):
    for split, stems in {"train": ["1_1_1_seg1", "1_1_1_seg2"], "test": ["7_7_188_seg3", "7_7_188_seg4"]}.items():
        write_segments(folder / "tiktok", stems, motion_shape=(4500,), rate=24000)
        lines = "".join(f"/elsewhere/tiktok/audio_s2/{stem}.wav\n" for stem in stems)
        (folder / f"tiktok_audio_{split}_segment.txt").write_text(lines)
    return small_dance_network(folder) | {"data.init_args.root": folder, "data.init_args.lists": folder}


MADE = {"cdcd/aist.yaml": aist, "cdcd/tiktok.yaml": tiktok}
"""What writes small files for a configuration, and the settings that make its networks small."""


def test_each_is_trained_somewhere():
    elsewhere = {f"{one}.yaml" for one in TEXT} | {f"mt_diffusion/{one}.yaml" for one in PICTURES}
    assert {name(path) for path in FULL} == {*MADE} | elsewhere


@pytest.mark.parametrize("path", [path for path in FULL if name(path) in MADE], ids=name)
def test_it_trains_on_files_of_its_layout(path, tmp_path, recwarn):
    cli = build(tmp_path / "run", path, **LITTLE | MADE[name(path)](tmp_path))
    cli.model.steps = 1
    train(cli)
    assert len(list((tmp_path / "run" / "samples").glob("*"))) == 2
    assert any("published are" in str(warning.message) for warning in recwarn), "a few files are no whole split"


@pytest.mark.parametrize("path", FULL, ids=name)
def test_its_header_says_paper_files_size_and_what_is_published(path):
    header = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    for words in (
        r"arXiv \d{4}\.\d{5}",
        "docs/data.md",
        "M parameters",
        "FLOP",
        "GB",
        "[Pp]ublished|Expected",
        "Hardware|hardware",
    ):
        assert re.search(words, header), words


@pytest.mark.parametrize("path", FULL, ids=name)
def test_it_averages_saves_draws_and_measures(path):
    kinds = [one["class_path"] for one in yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]["callbacks"]]
    assert {"EMA", "LastCheckpoint", "LogSamples", "Evaluate"} <= {*kinds}
    assert kinds.index("EMA") < kinds.index("LogSamples")
