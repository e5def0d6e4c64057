"""Files to tensors."""

from mmdiffusion.data.aist import AIST
from mmdiffusion.data.aist_segments import AISTSegments, TikTok
from mmdiffusion.data.class_maps import Cityscapes, ClassMaps
from mmdiffusion.data.coco import COCO
from mmdiffusion.data.cub import CUB
from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.image_pairs import ImagePairs
from mmdiffusion.data.image_text import ImageText
from mmdiffusion.data.imagenet import ImageNet
from mmdiffusion.data.images import read_images
from mmdiffusion.data.pair_layouts import Sheets, TwoFolders
from mmdiffusion.data.picture_folder import PictureFolder
from mmdiffusion.data.picture_shards import PictureShards
from mmdiffusion.data.picture_table import PictureTable
from mmdiffusion.data.prepared import Prepared
from mmdiffusion.data.recipe import Cache
from mmdiffusion.data.shapes import Shapes

__all__ = [
    "AIST",
    "COCO",
    "CUB",
    "AISTSegments",
    "Cache",
    "Cityscapes",
    "ClassMaps",
    "Dance",
    "Digits",
    "ImageNet",
    "ImagePairs",
    "ImageText",
    "PictureFolder",
    "PictureShards",
    "PictureTable",
    "Prepared",
    "Shapes",
    "Sheets",
    "TikTok",
    "TwoFolders",
    "read_images",
]
