"""Files to tensors."""

from mmdiffusion.data.class_maps import Cityscapes, ClassMaps
from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.image_pairs import ImagePairs
from mmdiffusion.data.imagenet import ImageNet
from mmdiffusion.data.images import read_images
from mmdiffusion.data.pair_layouts import Sheets, TwoFolders
from mmdiffusion.data.shapes import Shapes

__all__ = [
    "Cityscapes",
    "ClassMaps",
    "Dance",
    "Digits",
    "ImageNet",
    "ImagePairs",
    "Shapes",
    "Sheets",
    "TwoFolders",
    "read_images",
]
