"""Right before fast: every contender is held against float64 truth, twice, before it is timed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RIGHT = "errors at most twice the twin's or 1e-6, same bits twice"  # as a claim
EXACT = 1e-6  # relative: allowed where the twin is better than half of it
Call = Callable[[], Sequence[Tensor]]  # gives a value and gradients


def relative(got: Tensor, want: Tensor) -> float:
    """Largest error as a share of the largest true entry; infinite if something is no number."""
    if got.shape != want.shape:
        raise ValueError(f"want {tuple(want.shape)}, got {tuple(got.shape)}")
    wide = torch.promote_types(want.dtype, torch.float64)
    gap = (got.to(wide) - want.to(wide)).abs().max() / want.abs().max().clamp(min=1e-300)
    return float(gap) if bool(gap.isfinite()) else float("inf")


def errors(got: Sequence[Tensor], want: Sequence[Tensor]) -> dict[str, float]:
    """Error of the value, and the worst one of all gradients."""
    if len(got) != len(want):
        raise ValueError(f"want {len(want)} tensors, got {len(got)}")
    gaps = [relative(a, b) for a, b in zip(got, want, strict=True)]
    return {"value": gaps[0], **({"gradients": max(gaps[1:])} if gaps[1:] else {})}


def judge(
    fast: dict[str, Call], twin: Call | None, want: Sequence[Tensor], exact: float = EXACT
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Errors of all contenders, and complaints: too far from the truth, or not the same twice.

    A fast path may be twice as wrong as its naive twin, or `exact`, whichever is more.
    """
    found = {} if twin is None else {"twin": errors(twin(), want)}
    limit = {k: max(2 * e, exact) for k, e in found.get("twin", {}).items()}
    complaints = []
    for name, call in fast.items():
        first, again = call(), call()
        found[name] = errors(first, want)
        if not all(map(torch.equal, first, again)):
            complaints.append(f"{name}: two runs differ")
        for what, error in found[name].items():
            if not error <= limit.get(what, exact):
                allowed = f"{limit.get(what, exact):.1e}"
                complaints.append(f"{name}: error of the {what} {error:.1e}, allowed {allowed}")
    return found, complaints


def refuse(case: str, found: dict[str, dict[str, float]], complaints: list[str]) -> bool:
    """Print the errors; True, and why, if nothing may be timed."""
    for name, error in found.items():
        print(f"  error of {case} {name}: " + ", ".join(f"{k} {e:.1e}" for k, e in error.items()))
    for line in complaints:
        print(f"FAIL     {case} {line}: the results are not right, nothing is timed")
    return bool(complaints)


def gradients(y: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The value, and the gradients of half its squared norm."""
    return [y.detach(), *torch.autograd.grad(y.square().sum() / 2, leaves)]


def in_double(leaves: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers, in twice the precision, as leaves."""
    wide = [x.detach().to(torch.promote_types(x.dtype, torch.float64)) for x in leaves]
    return [x.requires_grad_() for x in wide]
