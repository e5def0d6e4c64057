"""Files to tensors."""

from mmdiffusion.data.digits import Digits

__all__ = ["Digits"]
