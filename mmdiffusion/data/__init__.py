"""Files to tensors."""

from mmdiffusion.data.aist import AIST
from mmdiffusion.data.aist_segments import AISTSegments, TikTok
from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits
from mmdiffusion.data.images import read_images
from mmdiffusion.data.shapes import Shapes

__all__ = ["AIST", "AISTSegments", "Dance", "Digits", "Shapes", "TikTok", "read_images"]
