"""One process of `test_two_processes.py`: feeds its share of fixed data to every metric and writes what it computed.

python worker.py RANK WORLD STORE OUT
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from mmdiffusion.codecs import HashTower, ImageTower
from mmdiffusion.data import Shapes
from mmdiffusion.masks import hide
from mmdiffusion.metrics import (
    BeatAlignment,
    BeatF1,
    BeatFMeasure,
    BeatHitSpread,
    CaptionAccuracy,
    ClassificationAccuracy,
    CLIPScore,
    FrechetDistance,
    InceptionScore,
    Judge,
    JudgedAccuracy,
    KinematicBeats,
    MeanIntersectionOverUnion,
    PeakSignalNoiseRatio,
    RetrievalRecall,
    SmallClassifier,
    VisibleError,
    ZeroShotAccuracy,
)
from mmdiffusion.types import SegmentationSpec
from tests.metrics.sound import Marks

NUM_IMAGES = 61
SHARES = {"uneven": 44, "empty": NUM_IMAGES}  # images of the first of two processes


class Threshold(Judge):
    """Reads class 1 from a bright image."""

    name = "threshold"

    def fit(self, images, labels):
        pass

    def predict(self, images):
        return (images.mean((1, 2, 3)) > 0).long()

    def signature(self):
        return self.name


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (NUM_IMAGES,), generator=generator)
    shift = (labels - 0.5).view(-1, 1, 1, 1) * 0.2
    return (torch.rand(NUM_IMAGES, 1, 8, 8, generator=generator) * 2 - 1 + shift).clamp(-1, 1), labels


def clips(seed):
    """Music for `Marks(100)` and motion, three seconds each; the first and the last clip are without a beat."""
    generator = torch.Generator().manual_seed(seed)
    music = (torch.rand(NUM_IMAGES, 300, generator=generator) < 0.01).float()
    music[[0, -1]] = 0
    return music, torch.randn(NUM_IMAGES, 180, 9, generator=generator).cumsum(1)


class Colours(ImageTower):
    """Mean colours in fixed directions, with length 1."""

    def forward(self, images):
        directions = torch.randn(3, self.summary_width, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(images.mean((2, 3)) @ directions, dim=-1)


def recognised(mine, batch_size):
    """Metrics of embeddings that are near those of their captions, and of images beside captions."""
    scenes = Shapes(num_train=NUM_IMAGES)
    rows, tower = scenes.columns("train"), HashTower(scenes.spec)
    text = tower(rows["caption"]).summary
    image = text + 0.1 * torch.randn(text.shape, generator=torch.Generator().manual_seed(4))
    score = CLIPScore(Colours(tower.summary_width, "colours"), HashTower)
    classified = ZeroShotAccuracy(score="mean_per_class")
    found = [RetrievalRecall("image", 5), RetrievalRecall("text", 1)]
    for metric in (score, classified):
        metric.describe(scenes.spec)
    classified.read(lambda texts: tower(texts).summary)
    for rows_of in torch.arange(NUM_IMAGES)[mine].split(batch_size) if mine.start < NUM_IMAGES else ():
        captions = [rows["caption"][i] for i in rows_of]
        score.update(rows["image"][rows_of], captions)
        classified.update(image[rows_of], rows["label"][rows_of])
        for metric in found:
            metric.update(image[rows_of], text[rows_of], rows_of, captions)
    return [score, classified, *found]


def restored(mine, batch_size):
    """Metrics of images and of maps of two classes, beside those that they were made from."""
    error, visible, overlap = PeakSignalNoiseRatio(), VisibleError(), MeanIntersectionOverUnion()
    overlap.describe({"segmentation": SegmentationSpec(("dark", "bright"), 8)})
    made, true = data(1)[0], data(0)[0]
    for rows in torch.arange(NUM_IMAGES)[mine].split(batch_size) if mine.start < NUM_IMAGES else ():
        error.update(made[rows], true[rows])
        visible.update(made[rows], hide(true[rows], true[rows, 0] < 0))
        overlap.update((made[rows, 0] > 0).long(), (true[rows, 0] > 0).long())
    return [error, visible, overlap]


def values(rank, num_first, batch_size):
    """Values and counts of every metric on images [0, num_first) for rank 0 and the rest for rank 1."""
    extractor = SmallClassifier(num_steps=5)
    extractor.fit(*data(0))
    mine = slice(0, num_first) if rank == 0 else slice(num_first, NUM_IMAGES)
    distance, score = FrechetDistance(extractor), InceptionScore(extractor, split_size=NUM_IMAGES // 4)
    judged, classified = JudgedAccuracy(Threshold()), ClassificationAccuracy()
    for images in data(0)[0][mine].split(batch_size) if mine.start < NUM_IMAGES else ():
        distance.update(images, real=True)
    images, labels = (tensor[mine].split(batch_size) for tensor in data(1))
    for image, label in zip(images, labels, strict=True) if mine.start < NUM_IMAGES else ():
        distance.update(image)
        score.update(image)
        judged.update(image, label)
        classified.update(label.flip(0), label)
    beats = [BeatHitSpread(Marks(100)), BeatF1(Marks(100)), BeatFMeasure(Marks(100))]
    alignment = BeatAlignment(Marks(100), KinematicBeats())
    music, motion = (tensor[mine].split(batch_size) for tensor in clips(2))
    reference = clips(3)[0][mine].split(batch_size)
    for clip, target, dance in zip(music, reference, motion, strict=True) if mine.start < NUM_IMAGES else ():
        alignment.update(clip, dance)
        for metric in beats:
            metric.update(clip, target)
    captioned, scenes = CaptionAccuracy(), Shapes(num_train=NUM_IMAGES)
    captioned.describe(scenes.spec)
    images, told = (scenes.columns("train")[name] for name in ("image", "attributes"))
    told = torch.where((torch.arange(NUM_IMAGES) % 3 == 0)[:, None, None], told.roll(1, 0), told)
    for image, attributes in zip(images[mine].split(batch_size), told[mine].split(batch_size), strict=True):
        captioned.update(image, attributes)
    metrics = (distance, score, judged, classified, captioned, alignment, *beats)
    metrics += (*recognised(mine, batch_size), *restored(mine, batch_size))
    computed = {metric.name(): metric.compute().item() for metric in metrics}
    return computed | {f"num_samples {metric.name()}": metric.num_samples for metric in metrics}


def main():
    rank, world, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    found = {share: values(rank, num_first, batch_size=61) for share, num_first in SHARES.items()}
    Path(out).write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
