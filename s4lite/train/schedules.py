"""How far each step goes, as a function of the step's number alone.

Home: chapter 16, "Training" (chapters/16_training.ipynb).
"""

import math

from s4lite.data.draws import check_whole

__all__ = ["constant", "cosine"]


def constant(step: int, warmup: int = 0) -> float:
    """Factor of all learning rates that rises to one and stays there.

    Args:
        step    int  number of the step to be taken, from 0
        warmup  int  steps before the factor is one, >= 0
    Returns:
        factor  float  (step + 1) / warmup, at most 1
    Raises:
        TypeError, ValueError: if one is no int, or < 0.

    Source: our eq-training-warmup.
    """
    check_whole(0, step=step, warmup=warmup)
    return min(1.0, (step + 1) / max(1, warmup))


def cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Factor of all learning rates that rises to one, then falls along half a cosine.

    Args:
        step    int    number of the step to be taken, from 0; beyond total the floor is kept
        total   int    steps of the whole run, fixed in advance, >= 1
        warmup  int    steps before the factor is one, 0 <= warmup < total
        floor   float  where it ends, 0 to 1
    Returns:
        factor  float
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Loshchilov and Hutter 2017; our eq-training-warmup, eq-training-cosine.
    """
    check_whole(0, step=step, total=total, warmup=warmup)
    if not (warmup < total and 0 <= floor <= 1):
        got = f"warmup={warmup}, total={total}, floor={floor}"
        raise ValueError(f"want warmup < total and 0 <= floor <= 1, got {got}")
    if step < warmup:
        return (step + 1) / warmup
    phase = min(1.0, (step - warmup) / (total - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * phase)) / 2
