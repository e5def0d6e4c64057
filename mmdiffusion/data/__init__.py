"""Files to tensors."""

from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.images import read_images
from mmdiffusion.data.prepared import Prepared
from mmdiffusion.data.recipe import Cache
from mmdiffusion.data.shapes import Shapes

__all__ = ["Cache", "Dance", "Digits", "Prepared", "Shapes", "read_images"]
