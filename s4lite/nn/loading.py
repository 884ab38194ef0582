"""Loading a state dict whole, or not at all.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["StrictLoading"]


def _means(new: Tensor, stored_as: str) -> Tensor:
    """What a stored number stands for: itself, e to the power of it, or its softplus."""
    if not stored_as:
        return new
    return new.double().exp() if stored_as == "log" else F.softplus(new.double(), threshold=40)


def _misfit(new: object, old: Tensor, assign: bool, stored_as: str) -> str:
    """Say what keeps a loaded value from taking a parameter's place; empty if nothing does."""
    if not isinstance(new, Tensor):
        return f"want a tensor, got {type(new).__name__}"
    if is_lazy(old) or is_lazy(new):
        return "" if is_lazy(old) else "want values, got an uninitialized parameter"
    kinds = {(x.is_floating_point(), x.is_complex()) for x in (new, old)}
    if new.shape != old.shape or len(kinds) > 1:
        want, got = f"{old.dtype} {tuple(old.shape)}", f"{new.dtype} {tuple(new.shape)}"
        return f"want {want}, got {got}"
    if new.is_meta:
        return "" if old.is_meta or assign else "want values, got a meta tensor"
    new = new if assign else new.to(old.dtype)
    if not bool(new.isfinite().all()):
        return f"want finite values, got NaN or inf in {new.dtype}"
    means = _means(new, stored_as)
    if stored_as and not bool((means.isfinite() & (means > 0)).all()):
        kind = "logarithms" if stored_as == "log" else "inverse softplus"
        return f"want {kind} of finite numbers > 0, got {new.min():g} to {new.max():g}"
    return ""


class StrictLoading(nn.Module):
    """A module that loads a state dict whole or not at all.

    Raises:
        TypeError: from `load_state_dict`, if that is no mapping from names.
        ValueError: from `load_state_dict`, before anything of it is written: if a name is missing
            or unknown (unless strict=False), a shape or kind of dtype differs, or a value would
            not be finite. As a part of a plain module it still refuses the last three.
    """

    logarithms: tuple[str, ...] = ()  # parameters whose exp must be finite and > 0 too
    softpluses: tuple[str, ...] = ()  # parameters whose softplus must be

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load as `nn.Module` does, but look at everything first."""
        self._refuse(state_dict, "", strict, assign)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _load_from_state_dict(self, state_dict, prefix, metadata, *rest: Any) -> None:
        assign = metadata.get("assign_to_params_buffers", False)
        self._refuse(state_dict, prefix, False, assign)
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)

    def _refuse(self, state_dict, prefix: str, strict: bool, assign: bool) -> None:
        if not isinstance(state_dict, Mapping) or not all(isinstance(k, str) for k in state_dict):
            raise TypeError(f"want state_dict as a mapping from names, got {state_dict!r:.60}")
        own = {prefix + name: value for name, value in self.state_dict().items()}
        stored = {}
        for at, part in self.named_modules(prefix=prefix.rstrip(".")):
            for kind, names in (("log", "logarithms"), ("softplus", "softpluses")):
                stored |= {f"{at}.{k}".lstrip("."): kind for k in getattr(part, names, ())}
        came = {name for name in state_dict if name.startswith(prefix)}
        both = {k for k in came & own.keys() if not k.endswith("_extra_state")}
        faults = {k: _misfit(state_dict[k], own[k], assign, stored.get(k, "")) for k in both}
        if strict:
            faults |= dict.fromkeys(own.keys() - came, "is missing")
            faults |= dict.fromkeys(came - own.keys(), "is unknown")
        said = "; ".join(f"{name}: {fault}" for name, fault in sorted(faults.items()) if fault)
        if said:
            raise ValueError(f"nothing was loaded into {type(self).__name__}: {said}")
