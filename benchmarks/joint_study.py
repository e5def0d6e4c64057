"""What further modalities do to images, and images to them: MT-Diffusion's parts over seeds and lengths, on digits.

    python -m benchmarks.joint_study STUDY [--rows NAME ...] [--seeds 0 1 2] [--steps 1400] [--out runs/joint]

Every variant sees the same number of images, on the same network. `tasks`: the image alone; images for a label alone;
labels read alone; a head that reads the label with nothing aggregated; joint diffusion of both; half the steps joint,
half on images for a label alone, or on labels read alone.
`representations`: the image alone, and with features of a small classifier: maps (ReDi), one token (REG), both.
`drifts`: joint diffusion with other ways for the label to enter; `encoders`: with other pictures for it; `heads`: with
other ways to read it. Samples are 1,000 of each kind, test split; distances are `fid[digits-cnn]` over that of real
digits. What is finished stays in the folder: an interrupted study goes on.
"""

import argparse
import math
import shutil
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.studies import kept, spread, test
from mmdiffusion.cli import execute
from mmdiffusion.data import Digits

CONFIGS = Path(__file__).parents[1] / "configs" / "mt_diffusion"
JUDGED, FID, READ = "judged_accuracy[digits-svm]", "fid[digits-cnn]", "classify_accuracy"
READS = "ClassificationAccuracy"


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        config: Its configuration, by name.
        settings: Of every extra modality, where they are others than the configuration's.
        encoder: What makes a picture of the label, where that is another; a table holds the mean digit of each class.
        dropped: The feature that is left out.
        model: Settings of the method, where they are others than the configuration's.
        first: Variant that half of the steps train, from whose weights the other half goes on.
    """

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    encoder: str | None = None
    dropped: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    first: "Variant | None" = None


def drift(name: str, **settings: Any) -> Variant:
    """Joint diffusion with another drift.

    Args:
        name: Its class.
        settings: Its arguments.
    """
    return Variant("digits", {"drift": {"class_path": name, "init_args": settings}})


def head(**settings: Any) -> Variant:
    """Joint diffusion of the clean image, read behind the output by variant E's head.

    Args:
        settings: The head's arguments.
    """
    return Variant(
        "digits", {"head": {"class_path": "OutputHead", "init_args": settings}}, model={"prediction": "clean"}
    )


ALONE, JOINT = Variant("digits_single_task"), Variant("digits")
TOLD = {"drift": {"class_path": "NoDrift"}, "weight": 0.0, "absent_share": 0.2, "shown_share": 0.8}
"""A label that the network is told, as in any conditional diffusion, and nothing else."""
UNREAD = {"weight": 1.0, "absent_share": 1.0, "shown_share": 0.0}
"""A label that is read off noisy images, which never hold it."""
STUDIES: dict[str, dict[str, Variant]] = {
    "tasks": {
        "image alone": ALONE,
        "image for a label alone": Variant("digits", TOLD),
        "label read alone": Variant("digits", UNREAD, model={"image_weight": 0.0}),
        "label head, nothing aggregated": drift("NoDrift"),
        "joint": JOINT,
        "joint, then images for a label": Variant("digits_finetuned", first=JOINT),
        "joint, then label read": Variant("digits_reader", first=JOINT),
    },
    "representations": {
        "image alone": ALONE,
        "image and maps (ReDi)": Variant("digits_features", dropped="feature"),
        "image and token (REG)": Variant("digits_features", dropped="feature_map"),
        "image, maps and token": Variant("digits_features"),
    },
    "drifts": {
        "saturating, strength 1": JOINT,
        "saturating, strength 0.5": drift("SaturatingDrift", strength=0.5, time_scale=0.05),
        "linear, strength 1": drift("LinearDrift", strength=1.0),
        "oneshot, strength 1": drift("OneshotDrift", strength=1.0),
        "off": drift("NoDrift"),
        "constant w = 0.01": drift("WeightedDrift", weights=0.01),
        "table: w = 0.02 for 50 steps, then 0": drift("WeightedDrift", weights=[0.02] * 50 + [0.0] * 950),
    },
    "encoders": {
        "orthogonal pictures": JOINT,
        "mean digit of each class": Variant("digits", encoder="TableEncoder"),
        "the denoiser itself": Variant("digits", encoder="BackboneEncoder"),
    },
    "heads": {
        "on the middle (M), velocity": JOINT,
        "on the middle (M), clean image": Variant("digits", model={"prediction": "clean"}),
        "on the output (E), clean image": head(),
        "on the output (E), clean image, detached": head(detach_image_path=True),
    },
}
COLUMNS = (
    "nothing given: distance",
    "drawn with a label: judged, %",
    "for a label: distance",
    "for a label: judged, %",
    "label read, %",
)


def mean_digits(folder: Path) -> Path:
    """A file with the mean training digit of each class, less the mean of these, for `TableEncoder`.

    Args:
        folder: Where it is written.
    """
    batch = Digits().split("train").columns
    images, labels = (cast(Tensor, batch[name]) for name in ("image", "label"))
    means = torch.stack([images[labels == label].mean(0) for label in labels.unique()])
    path = folder / "mean_digits.safetensors"
    save_file({"table": means - means.mean(0)}, path)
    return path


def config_of(variant: Variant, seed: int, steps: int, folder: Path, start: Path | None) -> dict[str, Any]:
    """The variant's configuration.

    Args:
        variant: The variant.
        seed: Seed of everything.
        steps: Training steps.
        folder: Where a file is written that it needs.
        start: Run that the training starts from; `None` for none.
    """
    config = yaml.safe_load((CONFIGS / f"{variant.config}.yaml").read_text())
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    trainer |= {"max_steps": steps, "val_check_interval": steps + 1}
    trainer["callbacks"] = [one for one in trainer["callbacks"] if one["class_path"] not in ("LogSamples", "Bound")]
    if variant.encoder:
        settings = {"path": str(mean_digits(folder))} if variant.encoder == "TableEncoder" else {}
        model["extras"]["label"]["encoder"] = {"class_path": variant.encoder, "init_args": settings}
    if variant.dropped:
        del model["extras"][variant.dropped]
        del data["num_features" if variant.dropped == "feature" else "num_maps"]
    for extra in model.get("extras", {}).values():
        extra.update(variant.settings)
    model.update(variant.model)
    for callback in trainer["callbacks"]:
        settings = callback.get("init_args", {})
        if callback["class_path"] == "StartFrom":
            settings["path"] = str(start)
        if callback["class_path"] == "Evaluate":
            settings.update(evaluation(variant, settings))
    return config | {"seed_everything": seed}


def evaluation(variant: Variant, settings: dict[str, Any]) -> dict[str, Any]:
    """What is drawn and measured of a variant, where that is not what its configuration says.

    Args:
        variant: The variant.
        settings: The configuration's.
    """
    draws, left_out = settings["draws"], ()
    if variant.settings is UNREAD:
        return {"draws": {}, "metrics": [one for one in settings["metrics"] if one["class_path"] == READS]}
    if variant.config == "digits_features":
        draws, left_out = {"joint": {"given": []}}, ("JudgedAccuracy", "InceptionScore")
    elif variant.settings is TOLD:
        draws = {"conditional": {"given": ["label"]}, "alone": {"given": [], "drawn": ["image"]}}
        left_out = (READS,)
    return {"draws": draws, "metrics": [one for one in settings["metrics"] if one["class_path"] not in left_out]}


def fit(variant: Variant, seed: int, steps: int, folder: Path, start: Path | None = None) -> None:
    """Train one variant.

    Args:
        variant: The variant.
        seed: Seed of everything.
        steps: Training steps.
        folder: Folder of the run; its configuration is written beside it.
        start: Run that the training starts from; `None` for none.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(config_of(variant, seed, steps, folder.parent, start)))
    execute(["fit", "-c", str(config), "--run", str(folder)])


def run(variant: Variant, seed: int, steps: int, folder: Path) -> dict[str, dict[str, float]]:
    """Train one variant and test it: figures by metric and column.

    Args:
        variant: The variant.
        seed: Seed of everything.
        steps: Training steps in all.
        folder: Folder of the run.
    """
    start = None
    if variant.first:
        start, steps = folder.with_name(f"{folder.name}-first"), steps // 2
        shutil.rmtree(start, ignore_errors=True)  # of a study that was interrupted
        fit(variant.first, seed, steps, start)
    fit(variant, seed, steps, folder, start)
    return test(folder)


def cells(runs: list[dict[str, dict[str, float]]]) -> list[str]:
    """Cells of a row: what `COLUMNS` names, over seeds."""
    found: list[list[float]] = [[] for _ in COLUMNS]
    for figures in runs:
        distance = figures.get(FID, {})
        real, nothing = distance.get("real", math.nan), distance.get("joint", distance.get("alone"))
        wanted = (
            None if nothing is None else nothing / real,
            100 * figures[JUDGED]["joint"] if "joint" in figures.get(JUDGED, {}) else None,
            distance["conditional"] / real if "conditional" in distance else None,
            100 * figures[JUDGED]["conditional"] if "conditional" in figures.get(JUDGED, {}) else None,
            100 * figures[READ]["classify"] if READ in figures else None,
        )
        for values, value in zip(found, wanted, strict=True):
            if value is not None:
                values.append(value)
    return [spread(values) if values else "" for values in found]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--rows", nargs="+", help="names of the rows to make; all unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[1400])
    parser.add_argument("--out", type=Path, default=Path("runs/joint"))
    arguments = parser.parse_args()
    variants = STUDIES[arguments.study]
    names = arguments.rows or [*variants]
    if not variants.keys() >= set(names):
        parser.error(f"--rows is {', '.join(names)}: expected some of {'; '.join(variants)}")
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[tuple[str, int], list[dict[str, dict[str, float]]]] = {}
    for seed in arguments.seeds:
        for steps in arguments.steps:
            for name in names:
                stem = "".join(letter if letter.isalnum() else "-" for letter in name)
                folder = arguments.out / f"{stem}-{steps}-{seed}"
                made = kept(folder, partial(run, variants[name], seed, steps, folder))
                results.setdefault((name, steps), []).append(made)
    lines = [f"| | steps | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in names:
        for steps in arguments.steps:
            lines.append(f"| {name} | {steps} | {' | '.join(cells(results[name, steps]))} |")
    Console(width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
