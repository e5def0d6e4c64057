"""ImageNet's folders as users have them: ImageFolder's, the archives of image-net.org unpacked, or Kaggle's."""

from collections.abc import Sequence
from pathlib import Path

from mmdiffusion.data.class_pictures import Collected, Pictures
from mmdiffusion.data.folders import file_names, first_with, folder_names
from mmdiffusion.data.layout import existing_folder, say_counts
from mmdiffusion.data.synsets import KAGGLE, NUM_CLASSES, read_synsets, read_val_labels

NUM_TRAIN, NUM_VAL = 1_281_167, 50_000
"""Pictures that ILSVRC 2012 publishes."""
WHAT = f"train/<wnid>/*.JPEG and val, as ImageNet has them; from image-net.org or {KAGGLE}"
_KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"
_PACKED = frozenset({".tar", ".zip", ".gz"})


class Archive:
    """ImageNet in a folder.

    Attributes:
        synsets: Its 1,000 classes.

    Args:
        root: Folder as it was unpacked.

    Raises:
        ValueError: if it is not ImageNet's, or the classes' numbers cannot be told.
    """

    def __init__(self, root: str | Path) -> None:
        top = existing_folder(root, WHAT)
        self.places = [top, *(top / name for name in (top.name, "ILSVRC", _KAGGLE_FOLDER))]
        self.folder = first_with(self.places, ["train"]) or _refuse(top)
        self.folders = folder_names(self.folder / "train")
        self.synsets = read_synsets(self.places, self.folders)

    def kept(self, classes: Sequence[str]) -> dict[str, int]:
        """Wnids of some classes and their numbers.

        Args:
            classes: Wnids; empty for all that have a training folder.

        Raises:
            ValueError: if one is unknown, or has no training folder.
        """
        numbers = {wnid: number for number, wnid in enumerate(self.synsets.wnids)}
        for where, names in (("classes", classes), (self.folder / "train", self.folders)):
            unknown = next((name for name in names if name not in numbers), None)
            if unknown is not None:
                raise ValueError(f"{where} has {unknown!r}: expected wnids of ILSVRC 2012, such as n01440764")
        missing = sorted(set(classes).difference(self.folders))
        if missing or not self.folders:
            raise ValueError(f"{self.folder / 'train'} has no folder {(missing or ['n01440764'])[0]}: expected {WHAT}")
        return {wnid: numbers[wnid] for wnid in (sorted(set(classes)) or self.folders)}

    def train(self, kept: dict[str, int], held_out: int, per_class: int | None) -> tuple[Pictures, Pictures]:
        """Training pictures, and those of them that are held out.

        Args:
            kept: Numbers of the classes, by wnid.
            held_out: Pictures of each class that are, the last by name.
            per_class: Most others of a class; `None` for all.

        Raises:
            ValueError: if a class has too few.
        """
        folder = self.folder / "train"
        training, rest = Collected(folder), Collected(folder)
        for wnid, label in kept.items():
            names = file_names(folder / wnid)
            end = len(names) - held_out
            if end < 1:
                raise ValueError(
                    f"{folder / wnid} has {len(names)} pictures: expected more than held_out, {held_out}; unpack the "
                    "class, or leave it out by `classes`"
                )
            training.add(wnid, names[:end][:per_class], label)
            rest.add(wnid, names[end:], label)
        self._tell("training pictures", len(training) + len(rest), NUM_TRAIN, kept)
        return training.pictures(), rest.pictures()

    def val(self, kept: dict[str, int]) -> Pictures:
        """The published validation pictures.

        Args:
            kept: Numbers of the classes, by wnid.

        Raises:
            ValueError: if there are none, or their labels cannot be told.
        """
        folder = self.folder / "val"
        folders, found = folder_names(folder), Collected(folder)
        for wnid, label in kept.items() if folders else ():
            found.add(wnid, file_names(folder / wnid), label)
        if not folders:
            self._add_flat(found, kept)
        if not len(found):
            raise ValueError(
                f"{folder} has no pictures of the {len(kept)} classes: expected ImageNet's validation pictures, which "
                f"are the test split; from image-net.org (ILSVRC2012_img_val.tar) or {KAGGLE}"
            )
        self._tell("validation pictures", len(found), NUM_VAL, kept)
        return found.pictures()

    def _add_flat(self, found: Collected, kept: dict[str, int]) -> None:
        names = file_names(found.folder)
        labels = read_val_labels(self.places) if names else {}
        for name in names:
            wnid = labels.get(Path(name).stem)
            if wnid is None:
                raise ValueError(f"{found.folder / name} is not in the list of labels: expected published pictures")
            if wnid in kept:
                found.add(".", [name], kept[wnid])

    def _tell(self, pictures: str, found: int, published: int, kept: dict[str, int]) -> None:
        counts = {pictures: found, "classes": len(kept)}
        say_counts(f"ImageNet at {self.folder}", counts, {pictures: published, "classes": NUM_CLASSES})


def _refuse(top: Path) -> Path:
    folders, packed = folder_names(top), file_names(top, _PACKED)
    shown = ", ".join([*packed, *folders][:3]) or "no folders"
    remedy = "; unpack it, and the archives of the classes within into folders of their names" if packed else ""
    if folders and folders[0][0] == "n" and folders[0][1:].isdigit():
        remedy = f"; these are class folders: give the folder that has train, {top.parent}"
    raise ValueError(f"root is {top}, it has {shown}: expected {WHAT}{remedy}")
