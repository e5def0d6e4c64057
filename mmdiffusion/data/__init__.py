"""Files to tensors."""

from mmdiffusion.data.coco import COCO
from mmdiffusion.data.cub import CUB
from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.image_text import ImageText
from mmdiffusion.data.images import read_images
from mmdiffusion.data.picture_folder import PictureFolder
from mmdiffusion.data.picture_shards import PictureShards
from mmdiffusion.data.picture_table import PictureTable
from mmdiffusion.data.shapes import Shapes

__all__ = [
    "COCO",
    "CUB",
    "Dance",
    "Digits",
    "ImageText",
    "PictureFolder",
    "PictureShards",
    "PictureTable",
    "Shapes",
    "read_images",
]
