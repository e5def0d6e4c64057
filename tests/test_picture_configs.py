"""MT-Diffusion at the paper's sizes trains on small files in the layouts of ImageNet, night2day and Cityscapes."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import save
from tests.small_configs import train, without_references
from tests.test_configs import CONFIGS, build

pytestmark = pytest.mark.filterwarnings("ignore:.*; published are")

NUM_PICTURES = 4
NAMES = ("imagenet64", "imagenet128", "night2day", "cityscapes")
LITTLE = {
    "trainer.precision": "32-true",
    "model.init_args.denoiser.init_args.levels": [{"width": 16, "depth": 1, "heads": 2}],
    "model.init_args.steps": 1,
    "data.init_args.size": 32,
    "data.init_args.batch_size": 2,
    "data.init_args.eval_batch_size": 2,
    "data.init_args.num_workers": 0,
}


def write_imagenet(root):
    wnids = [f"n{number:08d}" for number in range(1000)]
    for wnid in wnids[:2]:
        for row in range(NUM_PICTURES):
            for part in ("train", "val"):
                save(root / part / wnid / f"{wnid}_{row}.JPEG")
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} thing {wnid}\n" for wnid in wnids))


def write_sheets(root):
    for part in ("train", "val", "test"):
        for row in range(NUM_PICTURES):
            save(root / part / f"{row}.jpg", 80, 40)


def write_streets(root):
    for part in ("train", "val"):
        for row in range(NUM_PICTURES):
            stem = f"aachen_{row:06d}"
            save(root / "leftImg8bit" / part / "aachen" / f"{stem}_leftImg8bit.png", 60, 30, file_format="PNG")
            path = root / "gtFine" / part / "aachen" / f"{stem}_gtFine_labelIds.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((30, 60), 7 + row, np.uint8)).save(path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    write_imagenet(folder / "datasets" / "imagenet")
    write_sheets(folder / "datasets" / "night2day")
    write_streets(folder / "datasets" / "cityscapes")
    (folder / "weights").mkdir()
    (folder / "weights" / "weights-inception-2015-12-05-6726825d.pth").touch()  # read by `test` only
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_validates_and_draws(name, workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    cli = build(tmp_path / "run", without_references(f"mt_diffusion/{name}", tmp_path), **LITTLE)
    train(cli)
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2


def test_without_references_a_training_says_how_they_are_made(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    with pytest.raises(ValueError, match=r"references/imagenet64\.safetensors: no such file; .*mmdiffusion prepare"):
        build(tmp_path, CONFIGS / "mt_diffusion" / "imagenet64.yaml", **LITTLE)


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_paper_files_size_and_what_is_published(name):
    text = (CONFIGS / "mt_diffusion" / f"{name}.yaml").read_text()
    header = re.sub(r"\s*\n# *", " ", text.split("seed_everything")[0])
    for words in (
        "arXiv 2407.17571",
        "docs/data.md",
        r"\d M parameters",
        "FLOP a step",
        "GB a step",
        "Published",
        "Hardware",
    ):
        assert re.search(words, header), words
