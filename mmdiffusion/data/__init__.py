"""Files to tensors."""

from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.imagenet import ImageNet
from mmdiffusion.data.images import read_images
from mmdiffusion.data.shapes import Shapes

__all__ = ["Dance", "Digits", "ImageNet", "Shapes", "read_images"]
