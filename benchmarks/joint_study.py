"""What further modalities do to images, and images to them: MT-Diffusion's parts over seeds and lengths, on digits.

    python -m benchmarks.joint_study [--seeds 0 1 2] [--steps 350 700 1400] [--out runs/joint_study]

Every variant sees the same number of images, on the same network: the image alone; a head that reads the label with
nothing aggregated; joint diffusion of both; half the steps joint, half on images for a label alone; and with features
of a small classifier, as maps (ReDi), as one token (REG), and both. Samples are 1,000 of each kind, test split;
distances are `fid[digits-cnn]` over that of real digits. What is finished stays in the folder: a study that was
interrupted goes on.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.contrast_study import spread
from mmdiffusion.callbacks.table import FILES
from mmdiffusion.cli import execute

CONFIGS = Path(__file__).parents[1] / "configs" / "mt_diffusion"
JUDGED, FID, READ = "judged_accuracy[digits-svm]", "fid[digits-cnn]", "classify_accuracy"
LABEL = "model.init_args.extras.label."
NO_DRIFT = {LABEL + "drift": {"class_path": "NoDrift"}}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "image alone": ("digits_single_task", {}),
    "label head, nothing aggregated": ("digits", NO_DRIFT),
    "joint": ("digits", {}),
    "joint, then images for a label": ("digits_finetuned", {}),
    "image and maps (ReDi)": ("digits_features", {"drop": "feature"}),
    "image and token (REG)": ("digits_features", {"drop": "feature_map"}),
    "image, maps and token": ("digits_features", {}),
}
COLUMNS = ("nothing given: distance", "for a label: distance", "for a label: judged, %", "label read, %")


def config_of(variant: str, folder: Path) -> Path:
    """The variant's configuration, in the folder of its run.

    Args:
        variant: Name of the variant.
        folder: Folder of the run.
    """
    name, changes = VARIANTS[variant]
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    dropped = changes.get("drop")
    if dropped:
        del config["model"]["init_args"]["extras"][dropped]
        config["data"]["init_args"]["num_features" if dropped == "feature" else "num_maps"] = 0
    callbacks = [one for one in config["trainer"]["callbacks"] if one["class_path"] != "LogSamples"]
    evaluate = callbacks[-1]["init_args"]
    if name == "digits_features":
        evaluate["draws"] = {"joint": {"given": []}}
        evaluate["metrics"] = [one for one in evaluate["metrics"] if one["class_path"] == "FrechetDistance"]
    config["trainer"]["callbacks"] = callbacks
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return path


def fit(variant: str, seed: int, steps: int, folder: Path, **changes: Any) -> None:
    """Train one variant.

    Args:
        variant: Its name.
        seed: Seed of everything.
        steps: Training steps.
        folder: Folder of the run.
        changes: Options beside the variant's own.
    """
    options = {name: value for name, value in VARIANTS[variant][1].items() if name != "drop"} | changes
    trainer = {"trainer.max_steps": steps, "trainer.val_check_interval": steps + 1, "seed_everything": seed}
    words = [f"--{name}={json.dumps(value)}" for name, value in (trainer | options).items()]
    execute(["fit", "-c", str(config_of(variant, folder)), "--run", str(folder), *words])


def run(variant: str, seed: int, steps: int, folder: Path) -> dict[str, dict[str, float]]:
    """Train one variant and test it: figures by metric and column.

    Args:
        variant: Its name.
        seed: Seed of everything.
        steps: Training steps in all.
        folder: Folder of the run.
    """
    if variant == "joint, then images for a label":
        first = folder.with_name(f"{folder.name}-first")
        fit("joint", seed, steps // 2, first)
        fit(variant, seed, steps // 2, folder, **{"trainer.callbacks.2.init_args.path": str(first)})
    else:
        fit(variant, seed, steps, folder)
    execute(["test", "--run", str(folder)])
    made = json.loads((folder / FILES["test"]).read_text())
    return {metric: {column: figure["value"] for column, figure in row.items()} for metric, row in made.items()}


def cells(runs: list[dict[str, dict[str, float]]]) -> list[str]:
    """Cells of a row: what `COLUMNS` names, over seeds."""
    found: list[list[float]] = [[] for _ in COLUMNS]
    for figures in runs:
        distance, real = figures[FID], figures[FID]["real"]
        nothing = distance.get("joint", distance.get("alone"))
        wanted = (
            None if nothing is None else nothing / real,
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[350, 700, 1400])
    parser.add_argument("--out", type=Path, default=Path("runs/joint_study"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[tuple[str, int], list[dict[str, dict[str, float]]]] = {}
    for seed in arguments.seeds:
        for steps in reversed(arguments.steps):
            for variant in VARIANTS:
                name = "".join(letter if letter.isalnum() else "-" for letter in variant)
                folder = arguments.out / f"{name}-{steps}-{seed}"
                finished = folder / "result.json"
                if not finished.exists():
                    finished.write_text(json.dumps(run(variant, seed, steps, folder)) + "\n")
                results.setdefault((variant, steps), []).append(json.loads(finished.read_text()))
    lines = [f"| | steps | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for variant in VARIANTS:
        for steps in arguments.steps:
            lines.append(f"| {variant} | {steps} | {' | '.join(cells(results[variant, steps]))} |")
    Console(width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
