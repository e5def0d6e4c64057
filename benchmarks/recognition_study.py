"""What DiffDis's parts change: generation alone, discrimination alone, both, no diffusion; over seeds, on digits.

    python -m benchmarks.recognition_study [--seeds 0 1 2] [--out runs/recognition_study]

Every variant is trained from scratch with the settings of `configs/diffdis/digits.yaml`, shortened to 400 steps of one
batch for both tasks, and tested on the test split; the joint one also with more denoising steps, guidance and noises.
What is finished stays in the folder: a study that was interrupted goes on, one that is complete prints its table.
"""

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.studies import kept, spread, test
from mmdiffusion.cli import execute

CONFIG = Path(__file__).parents[1] / "configs" / "diffdis" / "digits.yaml"
NUM_STEPS = 400
MODEL = "model.init_args."
VARIANTS: dict[str, dict[str, Any]] = {
    "generation alone": {"alignment_weight": 0},
    "discrimination alone": {"generation_weight": 0},
    "joint": {},
    "joint, no diffusion of the query": {"is_diffused": False},
    "joint, two way": {"denoiser.init_args.query_direction": "two_way"},
    "joint, gamma 0.3": {"gamma": 0.3},
    "joint, times uniform": {"pure_share": 0},
}
RECOGNITION: dict[str, dict[str, Any]] = {
    "1 step": {},
    "5 steps": {"alignment_steps": 5},
    "10 steps": {"alignment_steps": 10},
    "1 step, guidance 1.5": {"alignment_guidance": 1.5},
    "1 step, 5 noises": {"num_draws": 5},
}
ZERO_SHOT, JUDGED, FID = "zero_shot_top1[label]", "judged_accuracy[digits-svm]", "fid[digits-cnn]"


def words(settings: dict[str, Any], of: str = MODEL) -> list[str]:
    """Settings as options, of the method unless said otherwise."""
    return [
        f"--{of}{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    ]


def callbacks(variant: str) -> list[dict[str, Any]]:
    """The config's, without what the variant cannot draw or recognise."""
    kept = yaml.safe_load(CONFIG.read_text())["trainer"]["callbacks"]
    evaluate = kept[-1]["init_args"]
    if variant == "generation alone":
        evaluate["metrics"] = [m for m in evaluate["metrics"] if m["class_path"] != "ZeroShotAccuracy"]
    if variant == "discrimination alone":
        evaluate["metrics"], evaluate["draws"] = evaluate["metrics"][:1], {}
    return [one for one in kept if one["class_path"] != "LogSamples"]


def run(variant: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one variant and test it; a joint one with every way to recognise.

    Args:
        variant: Name of the variant.
        seed: Seed of everything.
        folder: Folder of the run.

    Returns:
        Figures by way to recognise, metric and column.
    """
    trainer = {"max_steps": NUM_STEPS, "val_check_interval": NUM_STEPS + 1, "callbacks": callbacks(variant)}
    options = [f"--seed_everything={seed}", *words(trainer, "trainer."), *words(VARIANTS[variant])]
    execute(["fit", "-c", str(CONFIG), "--run", str(folder), *options])
    ways = RECOGNITION if variant == "joint" else {"1 step": {}}
    return {name: test(folder, *words(settings)) for name, settings in ways.items()}


def row(name: str, runs: list[dict[str, dict[str, float]]]) -> str:
    """One row of the table, in Markdown.

    Args:
        name: Its name.
        runs: Figures of each seed, by metric and column.
    """
    cells = [name]
    for metric, column, factor in (
        *((ZERO_SHOT, column, 100) for column in ("recognise", "blank images", "other images")),
        (JUDGED, "digit", 100),
        (FID, "digit", 1),
    ):
        values = [
            factor * figures[metric][column] for figures in runs if metric in figures and column in figures[metric]
        ]
        cells.append(spread(values) if values else "")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/recognition_study"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for seed in arguments.seeds:
        for variant in VARIANTS:
            folder = arguments.out / f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
            results[variant].append(kept(folder, partial(run, variant, seed, folder)))
    lines = [
        "| | recognised, % | blank images | other images | drawn: judged right, % | `fid[digits-cnn]` |",
        "|---" * 6 + "|",
    ]
    lines += [row(variant, [figures["1 step"] for figures in runs]) for variant, runs in results.items()]
    lines += [row(f"joint, {name}", [figures[name] for figures in results["joint"]]) for name in list(RECOGNITION)[1:]]
    Console(width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
