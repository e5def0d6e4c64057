"""Configurations at the papers' sizes, of pictures with captions or classes: they train on files of the public layouts.

Data, weights and the network's width are tiny; all else is as it is shipped, paths included.
"""

import io
import json
import pickle
import sys
import tarfile

import pytest
import yaml

from mmdiffusion.experiment import MMDiffusionCLI
from tests.data.pictures import scene, stored
from tests.helpers import ROOT, command
from tests.small_configs import train, without_references
from tests.tiny_weights import save_autoencoder_kl, save_clip, save_vq_model

pytest.importorskip("diffusers", reason="needs the extra `pretrained`")
pytest.importorskip("transformers", reason="needs the extra `pretrained`")

EXPERIMENTS = ("cdcd/cub", "cdcd/coco", "cdcd/imagenet", "diffdis/cc3m", "diffdis/coco", "mt_diffusion/imagenet_clip")
NUM_PICTURES = 20
BIRDS = [f"{1 + row % 2:03d}.Bird/Bird_{row:04d}" for row in range(NUM_PICTURES)]


def write_birds(root):
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        (root / part / "filenames.pickle").write_bytes(pickle.dumps(BIRDS))
    for name in BIRDS:
        for folder, content in (("images", stored(scene(), "JPEG")), ("text/text", b"a red bird\na small bird")):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / f"{name}.{'jpg' if folder == 'images' else 'txt'}").write_bytes(content)


def write_photographs(root, year):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part in (f"train{year}", f"val{year}"):
        (root / part).mkdir()
        images = [{"id": row, "file_name": f"{row}.jpg"} for row in range(NUM_PICTURES)]
        for image in images:
            (root / part / image["file_name"]).write_bytes(stored(scene(), "JPEG"))
        captions = [
            {"image_id": row, "caption": f"{word} street"} for row in range(NUM_PICTURES) for word in ("a", "the")
        ]
        records = json.dumps({"images": images, "annotations": captions})
        (root / "annotations" / f"captions_{part}.json").write_text(records)


def write_shards(root):
    root.mkdir(parents=True)
    for part in ("train", "validation"):
        with tarfile.open(root / f"cc3m-{part}-0000.tar", "w") as archive:
            for row in range(NUM_PICTURES):
                for end, content in (("jpg", stored(scene(), "JPEG")), ("txt", f"the scene {row}".encode())):
                    info = tarfile.TarInfo(f"{row:09d}.{end}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def write_classes(root):
    wnids = [f"n{row:08d}" for row in range(1000)]
    root.mkdir(parents=True)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} thing {wnid}\n" for wnid in wnids))
    for part, count in (("train", 10), ("val", 2)):
        for wnid in wnids[:2]:
            (root / part / wnid).mkdir(parents=True)
            for row in range(count):
                (root / part / wnid / f"{wnid}_{row}.JPEG").write_bytes(stored(scene(), "JPEG"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    data, weights = folder / "datasets", folder / "weights"
    write_birds(data / "birds")
    write_photographs(data / "coco", 2014)
    write_photographs(data / "coco", 2017)
    write_shards(data / "cc3m")
    write_classes(data / "imagenet")
    save_vq_model(weights / "vq-diffusion-ithq" / "vqvae", num_blocks=4)
    save_vq_model(weights / "vqgan-imagenet-f16", num_blocks=5)
    save_autoencoder_kl(weights / "sd-vae-ft-mse")
    for name in ("clip-vit-base-patch32", "clip-vit-large-patch14"):
        (weights / name).mkdir()
        save_clip(weights / name)
    (weights / "weights-inception-2015-12-05-6726825d.pth").touch()  # read by `test` only
    return folder


def smaller(name):
    """What makes an experiment small: fewer levels and narrow ones, small pictures, few of them."""
    levels = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["model"]["init_args"]["denoiser"]
    count = min(2, len(levels["init_args"]["levels"]))
    options = {
        "model.init_args.denoiser.init_args.levels": [{"width": 16, "depth": 1, "heads": 2}] * count,
        "model.init_args.steps": 1,
        "data.init_args.size": 64,
        "data.init_args.batch_size": 4,
        "data.init_args.eval_batch_size": 4,
        "data.init_args.num_workers": 0,
        "trainer.enable_progress_bar": False,
        "trainer.logger": False,
    }
    if name.startswith("diffdis"):
        options |= {
            "data.init_args.num_val": 8,
            "model.init_args.denoiser.init_args.embedding_width": 16,
            "model.init_args.head.init_args.width": 16,
            "model.init_args.head.init_args.heads": 2,
        }
    return options


def build(folder, name):
    config = without_references(name, folder)
    options = [f"--{key}={json.dumps(value)}" for key, value in smaller(name).items()]
    if name.endswith("clip"):  # which is trained from a cache
        options.append(f"--cache.folder={folder / 'cache'}")
        status, _, problem = command("prepare", "--config", config, *options)
        assert status == 0, problem
    configs = (config, ROOT / "configs" / "overlays" / "debug.yaml")
    words = [word for path in configs for word in ("--config", str(path))]
    words += ["--trainer.accelerator=cpu", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmdiffusion"])
        return MMDiffusionCLI(folder, words, execute=False)


@pytest.mark.filterwarnings("ignore:the smallest batch has 4 pairs", "ignore:.*; published are")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_trains_validates_and_draws(name, workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    cli = build(tmp_path, name)
    train(cli)
    assert list((tmp_path / "samples").glob("*.png"))
