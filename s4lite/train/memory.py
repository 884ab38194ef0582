"""Memory that the C library keeps, given back.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import ctypes
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

__all__ = ["Trimming", "trim_memory"]


def trim_memory() -> bool:
    """Give free memory back to the system, where the C library keeps it (glibc does).

    Returns:
        done  bool  whether it could be told to
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another library, or another system
        return False
    return True


class Trimming(Callback):
    """Trims memory every few batches; what is computed stays the same.

    Args:
        every  int  batches
    """

    def __init__(self, every: int = 64) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: Trainer, learner: Any, *batch: Any) -> None:
        """Trim, if it is time; batch is outputs, batch and its index."""
        if batch[-1] % self.every == self.every - 1:
            trim_memory()

    def on_validation_end(self, trainer: Trainer, learner: Any) -> None:
        """Trim: the batches of validation are larger."""
        trim_memory()
