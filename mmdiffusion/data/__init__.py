"""Files to tensors."""

from mmdiffusion.data.dance import Dance
from mmdiffusion.data.digits import Digits

__all__ = ["Dance", "Digits"]
