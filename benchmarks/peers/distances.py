"""FID over 10,000 samples with 2,048 features beside torchmetrics': from statistics to number, and what is kept."""

import statistics

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.peers.table import Row, ratios
from benchmarks.turns import seconds_in_turns
from mmdiffusion.metrics import FeatureExtractor, FrechetDistance

NEEDS = ()
NUM_SAMPLES, WIDTH, BATCH = 10_000, 2048, 500


class Given(FeatureExtractor):
    """Features that are there already."""

    name, num_features = "given", WIDTH

    def features(self, images: Tensor) -> Tensor:
        """The features."""
        return images.flatten(1)

    def logits(self, images: Tensor) -> Tensor:
        """None: nothing is classified."""
        raise NotImplementedError

    def signature(self) -> str:
        """Its name."""
        return self.name


class GivenToPeer(nn.Module):
    """The same for torchmetrics."""

    num_features = WIDTH

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        return images.flatten(1)


def features(seed: int) -> Tensor:
    """Features like a network's: never negative, and with few directions that hold most of the variance.

    Args:
        seed: Two sets of different seeds differ in their mean as well.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
    strengths = torch.linspace(0, -6, WIDTH).exp() * 8
    generator.manual_seed(seed)
    drawn = torch.randn(NUM_SAMPLES, WIDTH, generator=generator)
    return (drawn * strengths @ directions + 0.1 * seed).relu()


def feed(metric: Metric, sets: dict[bool, Tensor]) -> tuple[int, int]:
    """Show a metric both sets batch by batch: bytes that it keeps after the first batch, and after the last.

    Args:
        metric: Ours or the peer's.
        sets: References by `True`, samples by `False`.
    """
    kept = []
    for real, rows in sets.items():
        for batch in rows[..., None, None].split(BATCH):
            metric.update(batch, real=real)
            kept.append(sum(getattr(metric, name).nbytes for name in metric._defaults))
    metric.compute_with_cache = False
    return kept[0], kept[-1]


def measure(rounds: int) -> list[Row]:
    """Rows of the table.

    Args:
        rounds: Rounds that count.
    """
    sets = {True: features(1), False: features(2)}
    ours, peer = FrechetDistance(Given()), FrechetInceptionDistance(GivenToPeer(), input_img_size=(WIDTH, 1, 1))
    first, last = feed(ours, sets)
    feed(peer, sets)
    seconds = seconds_in_turns({"ours": ours.compute, "peer": peer.compute}, rounds)
    mine, other = (f"{statistics.median(seconds[who]):.2f} s" for who in ("ours", "peer"))
    values = [metric.compute().item() for metric in (ours, peer)]
    what = f"FID, {NUM_SAMPLES:,} samples, {WIDTH:,} features"
    kept = f"{last / 1e6:.0f} MB"
    return [
        Row(f"{what}: time of torchmetrics'", 0.4, False, ratios(seconds["ours"], seconds["peer"]), mine, other),
        Row(
            f"{what}: relative difference",
            1e-6,
            False,
            [abs(values[0] / values[1] - 1)],
            *(f"{value:.6f}" for value in values),
            form="{:.0e}",
        ),
        Row(f"{what}: kept after the last batch over the first", 1.0, False, [last / first], kept),
    ]
