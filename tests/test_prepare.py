"""`mmdiffusion prepare` as a user meets it: prepared once, a run goes as it would have gone without."""

import copy
import json
import shutil
from functools import partial

import pytest
import torch

from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.codecs import AutoencoderKLLatents, GreyLevels, HashTower
from mmdiffusion.data import Cache, Digits, Prepared
from mmdiffusion.data.encoding import Processes
from mmdiffusion.data.prepared import SPLITS
from mmdiffusion.prepare import encode, processes
from mmdiffusion.seeding import step_generator
from tests.codecs.test_encoder import Noisy
from tests.codecs.test_frozen import build_cdcd
from tests.codecs.test_latents import save
from tests.data.in_files import InFiles
from tests.helpers import CONFIG, command, write_config
from tests.methods.build_diffdis import build

REFERENCES = [("test", None), ("train", 2000)]


def build_config(folder, **data):
    """The tiny configuration, measured against stored references and with few rows a file."""
    config = copy.deepcopy(CONFIG)
    config["data"]["init_args"] |= data
    metrics = [
        {
            "class_path": "FrechetDistance",
            "init_args": {
                "extractor": {"class_path": "SmallClassifier", "init_args": {"num_steps": 2}},
                "reference": {"path": str(folder / f"{split}.safetensors"), "split": split, "num_rows": num_rows},
            },
        }
        for split, num_rows in REFERENCES
    ]
    config["trainer"]["callbacks"][-1]["init_args"]["metrics"] = metrics
    config["cache"] = {"shard_rows": 300}
    return config


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def run(*words):
    status, out, err = command(*words)
    assert status == 0, err
    return out + err


def refuse(*words):
    status, _, err = command(*words)
    assert status == 2, err
    assert "Traceback" not in err
    return " ".join(err.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `tiny.yaml`, prepared: a `cache`, and statistics of references."""
    folder = tmp_path_factory.mktemp("prepare")
    write_config(folder / "tiny.yaml", build_config(folder))
    run("prepare", "-c", folder / "tiny.yaml", "--cache.folder", folder / "cache")
    return folder


# What is written -----------------------------------------------------------------------------------------------


def test_cache_and_references_are_there(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        *("cache", "test.safetensors", "tiny.yaml", "train.safetensors")
    ]
    assert sorted(path.name for path in (folder / "cache").iterdir()) == sorted(SPLITS)
    files = contents(folder / "cache")
    assert {f"train/shard-{number:05d}.safetensors" for number in range(5)} <= set(files)
    assert {"train/manifest.json", "train/probe.safetensors"} <= set(files)


@pytest.mark.parametrize(
    "environment",
    [
        {"TORCHELASTIC_RUN_ID": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "RANK": "{rank}"},
        {
            **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "prepare"},
            **{"SLURM_PROCID": "{rank}", "SLURM_LOCALID": "{rank}"},
        },
    ],
    ids=["torchrun", "srun"],
)
def test_two_processes_write_what_one_writes(folder, tmp_path, monkeypatch, environment):
    (tmp_path / "tiny.yaml").write_text((folder / "tiny.yaml").read_text().replace(str(folder), str(tmp_path)))
    for rank in (1, 0):
        assert not (tmp_path / "cache" / "train" / "shard-00000.safetensors").exists()
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(rank=rank))
        assert processes() == Processes(rank, 2, processes().device)
        run("prepare", "-c", tmp_path / "tiny.yaml", "--cache.folder", tmp_path / "cache")
    (tmp_path / "tiny.yaml").write_text((folder / "tiny.yaml").read_text())
    assert contents(tmp_path) == contents(folder)


def test_a_second_time_changes_nothing(folder):
    before = contents(folder)
    run("prepare", "-c", folder / "tiny.yaml", "--cache.folder", folder / "cache")
    assert contents(folder) == before


# Runs ----------------------------------------------------------------------------------------------------------


def test_a_run_from_a_cache_is_the_run_without(folder, tmp_path):
    config = folder / "tiny.yaml"
    run("fit", "-c", config, "--cache.folder", folder / "cache", "--run", tmp_path / "with")
    run("fit", "-c", config, "--run", tmp_path / "without")
    assert (tmp_path / "with" / "metrics.csv").read_text() == (tmp_path / "without" / "metrics.csv").read_text()
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)

    run("test", "--run", tmp_path / "with")
    figures = json.loads((tmp_path / "with" / "metrics.json").read_text())
    assert set(figures) == {"fid[digits-cnn, test]", "fid[digits-cnn, 2000 of train]"}
    joint = figures["fid[digits-cnn, 2000 of train]"]["joint"]
    assert (joint["num_samples"], joint["num_references"]) == (20, 2000)
    assert joint["reference"] == f"2000 of train, {folder / 'train.safetensors'}"


def both_batches(folder, data, method):
    """The first four training rows, as a cache of the method's hands them out, and as the data do."""
    cache, bar = Cache(str(folder)), StepProgress()
    bar.disable()
    encode(data, method, cache, Processes(), bar)
    prepared = Prepared(data, cache, method.encoders(), method.givable)
    return [part.on_after_batch_transfer(part.split("train").__getitems__(range(4)), 0) for part in (prepared, data)]


def losses(method, batch):
    terms = method.losses(batch, step_generator(0, "train", 0, rank=0, world_size=1, device="cpu"))
    return {name: value.item() for name, value in terms.items()}


def build_diffdis(codec, data):
    return build(spec=data.spec, codec=codec, tower=partial(HashTower, width=16))


def test_losses_of_tokens_are_those_without_a_cache(tmp_path):
    method = build_cdcd(GreyLevels)
    batch, own = both_batches(tmp_path, Digits(), method)
    assert set(batch) == {"index", "label", "caption", "image.tokens"}
    assert losses(method, batch) == losses(method, own)


def test_losses_of_random_latents_and_captions_are_those_without_a_cache(tmp_path):
    method = build_diffdis(Noisy, InFiles())
    batch, own = both_batches(tmp_path, InFiles(), method)
    assert "image" not in batch
    found = losses(method, batch)
    assert found == losses(method, own)
    batch["caption"] = ["a picture"] * 4
    assert losses(method, batch)["same_captions"] > found["same_captions"], "captions themselves are still compared"
    assert losses(method, batch)["generation"] == found["generation"], "their stored tokens are read"
    batch["image.deviation"].zero_()
    assert losses(method, batch)["generation"] != found["generation"], "latents are drawn"


def test_losses_of_diffusers_latents_are_those_without_a_cache(tmp_path):
    pytest.importorskip("diffusers", reason="needs the extra `pretrained`")
    data = InFiles(side=16)
    method = build_diffdis(partial(AutoencoderKLLatents, path=save(tmp_path / "weights")), data)
    batch, own = both_batches(tmp_path / "cache", data, method)
    assert losses(method, batch) == losses(method, own)


FEATURE = {
    "encoder": {"class_path": "OwnToken"},
    "head": {"class_path": "OwnHead"},
    "drift": {"class_path": "OneshotDrift", "init_args": {"strength": 1.0}},
    "absent_share": 0.0,
}


def test_features_of_a_tower_are_diffused_with_the_image(tmp_path):
    config = build_config(tmp_path)
    config["cache"] |= {
        "folder": str(tmp_path / "cache"),
        "features": {"feature": {"class_path": "tests.codecs.test_encoder.Colours"}},
    }
    config["model"]["init_args"]["extras"] = {"feature": FEATURE}
    for callback in config["trainer"]["callbacks"][2:]:
        callback["init_args"]["draws"] = {"joint": {"given": []}, "conditional": {"given": ["feature"]}}
    config["trainer"]["callbacks"][-1]["init_args"]["metrics"] = []
    write_config(tmp_path / "tiny.yaml", config)
    assert "holds no cache" in refuse("fit", "-c", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    run("prepare", "-c", tmp_path / "tiny.yaml")
    run("fit", "-c", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    run("test", "--run", tmp_path / "run")


# Mistakes ------------------------------------------------------------------------------------------------------


def test_a_cache_of_data_of_another_size_is_refused(folder, tmp_path):
    words = ("-c", folder / "tiny.yaml", "--cache.folder", folder / "cache", "--data.init_args.size", 16)
    err = refuse("fit", *words, "--run", tmp_path / "run")
    assert "train was prepared with data.spec.image.size 8: this configuration has 16" in err
    assert "data.spec.image.size 8: this configuration has 16" in refuse("prepare", *words)
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_is_named_and_mended(folder, tmp_path, caplog):
    cache = shutil.copytree(folder / "cache", tmp_path / "cache")
    file = cache / "train" / "shard-00003.safetensors"
    stored = file.read_bytes()
    file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    words = ("-c", folder / "tiny.yaml", "--cache.folder", cache)
    err = refuse("fit", *words, "--run", tmp_path / "run")
    assert "train/shard-00003.safetensors is damaged" in err
    assert not (tmp_path / "run" / "checkpoints").exists()
    run("prepare", *words)
    assert file.read_bytes() == stored
    assert "shard-00003.safetensors is damaged" in caplog.text


def test_statistics_of_another_protocol_are_refused_before_a_training(folder, tmp_path):
    write_config(tmp_path / "tiny.yaml", build_config(folder, size=16))
    err = refuse("fit", "-c", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    assert "test.safetensors was prepared with image.size 8: this configuration has 16" in err
    assert "image.size 8: this configuration has 16" in refuse("prepare", "-c", tmp_path / "tiny.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "somewhere"], "--run is somewhere: expected none, prepare has no run"),
        ([], "there is nothing to prepare: expected --cache.folder FOLDER"),
        (["--cache.encoded", "[music]", "--cache.folder", "{tmp}"], "cache.encoded has 'music': expected nothing"),
        (["--cache.views", "2", "--cache.folder", "{tmp}"], "cache.views is 2: expected 1"),
        (["--cache", "somewhere"], "--cache is somewhere: expected a file of settings; a single one is --cache.NAME"),
        (["--cache.rows", "2"], "rows"),
    ],
)
def test_a_mistake_has_one_clear_message(tmp_path, words, message):
    config = write_config(tmp_path / "tiny.yaml")
    assert message in refuse("prepare", "-c", config, *(word.format(tmp=tmp_path / "cache") for word in words))
    assert not list(tmp_path.glob("cache/*"))
