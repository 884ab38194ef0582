"""Which parameters learn fast, which slowly, and which decay.

Home: chapter 12, "The published S4: settings, learning rates, weights"
(chapters/12c_published.ipynb).
"""

import math
import re
from numbers import Real
from typing import Any

from torch import nn

__all__ = ["param_groups", "parameter_kinds"]


_KINDS = ("decayed", "plain", "slow", "clock")  # from careless to careful


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """Tell for every parameter of a model what an optimizer should treat it as.

    Args:
        model  nn.Module  any; kernels of ours name their slow parameters in `slow`
    Returns:
        kinds  dict  name, as in `named_parameters`, to "decayed", "plain", "slow" or "clock"
    Raises:
        TypeError: if model is no nn.Module.

    Source: our eq-published-turn, eq-published-leak.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"want model as an nn.Module, got {type(model).__name__}")
    found: dict[int, str] = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            kinds = (_kind(module, name), found.get(id(p), "decayed"))
            found[id(p)] = max(kinds, key=_KINDS.index)
    return {name: found[id(p)] for name, p in model.named_parameters()}


def _kind(module: nn.Module, name: str) -> str:
    """What one module's own parameter is, going by the module and the name."""
    slow = getattr(module, "slow", ())
    if isinstance(slow, tuple) and name in slow:
        return "clock" if name in ("log_dt", "inv_dt") else "slow"
    is_norm = any(re.search(r"Norm(\dd)?$", base.__name__) for base in type(module).__mro__)
    plain = is_norm or "bias" in name or isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    return "plain" if plain else "decayed"


def param_groups(
    model: nn.Module,
    lr: float,
    ssm_lr: float = 1e-3,
    weight_decay: float = 0.0,
    *,
    clock_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups for any optimizer of torch.

    Args:
        model         nn.Module      its frozen parameters are left out
        lr            float          for all but the slow parameters, > 0
        ssm_lr        float          for the slow ones, if it is less than lr
        weight_decay  float          for C, D and weights, >= 0; the others never decay
        clock_lr      float or None  for the clocks, whatever the other two say; None: as the slow
    Returns:
        groups  list of dicts  params, lr, weight_decay and a name; every parameter once
    Raises:
        TypeError: if model is no nn.Module, or another argument no number.
        ValueError: if a number is not finite and in its range, or nothing is left to train.

    Source: Gu et al. 2022 (S4), appendix D; our eq-published-turn, eq-published-leak.
    """
    kinds = parameter_kinds(model)
    rates = _rates(lr, ssm_lr, weight_decay, clock_lr)
    params: dict[str, list[nn.Parameter]] = {kind: [] for kind in rates}
    for name, p in model.named_parameters():
        params[kinds[name]] += [p] if p.requires_grad else []
    if not any(params.values()):
        raise ValueError(f"want a model with parameters to train, got {type(model).__name__}")
    return [{"params": params[k], **rates[k], "name": k} for k in rates if params[k]]


def _rates(lr: float, ssm_lr: float, weight_decay: float, clock_lr: float | None) -> dict:
    """Learning rate and decay of each kind; raise unless they are numbers that make sense."""
    numbers = {"lr": lr, "ssm_lr": ssm_lr, "weight_decay": weight_decay}
    numbers |= {} if clock_lr is None else {"clock_lr": clock_lr}
    for name, x in numbers.items():
        if isinstance(x, bool) or not isinstance(x, Real):
            raise TypeError(f"want {name} as a number, got {type(x).__name__} {x!r:.40}")
        if not (0 <= x < math.inf) or (x == 0 and name != "weight_decay"):
            low = ">= 0" if name == "weight_decay" else "> 0"
            raise ValueError(f"want {name} finite and {low}, got {x}")
    slow_lr = min(lr, ssm_lr)
    return {
        "decayed": {"lr": lr, "weight_decay": weight_decay},
        "plain": {"lr": lr, "weight_decay": 0.0},
        "slow": {"lr": slow_lr, "weight_decay": 0.0},
        "clock": {"lr": slow_lr if clock_lr is None else clock_lr, "weight_decay": 0.0},
    }
