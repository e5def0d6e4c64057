"""Representation guidance of images that are drawn with features: what it does by scale, over seeds, on digits.

    python -m benchmarks.guidance_study [--seeds 0 1 2] [--steps 700] [--out runs/guidance]

Maps of features (ReDi), one token (REG) and both, as in `benchmarks.joint_study`, but a fifth of the training samples
has no features, which guidance needs. Samples are 1,000 drawn from nothing, test split; distances are
`fid[digits-cnn]` over that of real digits. What is finished stays in the folder: an interrupted study goes on.
"""

import argparse
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.joint_study import FID, STUDIES, fit
from benchmarks.studies import kept, spread, test

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
ABSENT_SHARE = 0.2
VARIANTS = [name for name, variant in STUDIES["representations"].items() if variant.config == "digits_features"]


def run(name: str, seed: int, steps: int, folder: Path) -> dict[str, float]:
    """Train one variant and test it by scale of guidance: distances over that of real digits.

    Args:
        name: Name of the variant.
        seed: Seed of everything.
        steps: Training steps.
        folder: Folder of the run.
    """
    fit(replace(STUDIES["representations"][name], settings={"absent_share": ABSENT_SHARE}), seed, steps, folder)
    distances = {}
    for scale in SCALES:
        figures = test(folder, f"--model.init_args.representation_guidance={scale}")[FID]
        distances[str(scale)] = figures["joint"] / figures["real"]
    return distances


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        for name in VARIANTS:
            stem = "".join(letter if letter.isalnum() else "-" for letter in name)
            folder = arguments.out / f"{stem}-{arguments.steps}-{seed}"
            made = kept(folder, partial(run, name, seed, arguments.steps, folder))
            results.setdefault(name, []).append(made)
    lines = [f"| | {' | '.join(f'guidance {scale:g}' for scale in SCALES)} |", "|---" * (len(SCALES) + 1) + "|"]
    for name, runs in results.items():
        lines.append(f"| {name} | {' | '.join(spread([one[str(scale)] for one in runs]) for scale in SCALES)} |")
    Console(width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
