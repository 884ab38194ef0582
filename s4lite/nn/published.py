"""The settings of published S4s, and their weights as ours.

Home: chapter 12, "The published S4: settings, learning rates, weights"
(chapters/12c_published.ipynb).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.nn.layer import S4, S4D
from s4lite.nn.published_block import check_block, find_block
from s4lite.ops.checks import check_length
from s4lite.ops.dplr import dplr_discretize, real_form

__all__ = ["S4_UPDATED", "S4_V1", "S4_V4", "from_state_spaces", "translate", "undo_c_tilde"]


S4_V1 = {
    "d_state": 64,
    "init": "legs",
    "n_ssm": 1,
    "clock": "log",
    "dt_min": 1e-3,
    "dt_max": 1e-1,
    "bidirectional": False,
    "activation": "gelu",
    "mixer": "linear",
}


S4_UPDATED = {
    "d_state": 64,
    "init": "legs",
    "n_ssm": 2,
    "clock": "log",
    "dt_min": 1e-3,
    "dt_max": 1e-1,
    "bidirectional": True,
    "activation": "gelu",
    "mixer": "glu",
}


S4_V4 = {
    "d_state": 64,
    "init": "legs",
    "n_ssm": 1,
    "clock": "softplus",
    "dt_min": 1e-3,
    "dt_max": 1e-1,
    "bidirectional": True,
    "activation": "gelu",
    "mixer": "glu",
}


def undo_c_tilde(Ct: Tensor, Lambda: Tensor, P: Tensor, dt: Tensor, L: int) -> Tensor:
    """Recover C from C-tilde = C (I - Ab^L), for a diagonal plus low rank system.

    Args:
        Ct      (..., n)     half of C-tilde, not conjugated
        Lambda  (..., n)     poles, one of each conjugate pair, Re <= 0  [1/time]
        P       (..., n, r)  low rank factor: A = Lambda - P P^*
        dt      (...)        step size, > 0  [time]
        L       int          the length to which C-tilde belongs, >= 1
    Returns:
        C  (..., n)  complex128
    Raises:
        TypeError: if Lambda is no complex tensor, another no tensor, or L no int.
        ValueError: if shapes do not fit, L < 1, or L |(I - Ab^L)^-1| is 2^29 or more.

    Error:  a few times L |(I - Ab^L)^-1| 2^-53 of |C|.
    Source: Gu et al. 2022 (S4), appendix C.3; our eq-published-undo, eq-published-rounding.
    """
    check_length(L)
    row = real_form(*(x.to(torch.complex128) for x in (Lambda, P, P[..., 0], Ct)))[2]
    power = torch.linalg.matrix_power(dplr_discretize(Lambda, P, P[..., 0], dt)[0], L)
    gap = torch.eye(power.shape[-1], dtype=power.dtype, device=power.device) - power
    least = torch.linalg.matrix_norm(gap.detach().nan_to_num(0.0), -2).min().item()
    if not least > L * 2.0**-29:
        got = f"I - Ab^{L} with a singular value of {least:.1g}"
        raise ValueError(f"want a C-tilde that can be undone, got {got}")
    re, im = torch.linalg.solve(gap, row[..., None, :], left=False)[..., 0, :].chunk(2, -1)
    return torch.complex(re, -im) / math.sqrt(2)


def _as_s4block(arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The arrays of s4d.py as an S4Block would store the same layer; an S4Block as it is."""
    if "kernel.log_dt" not in arrays:
        return arrays
    one = arrays["kernel.C"].new_tensor([1.0, 0.0])
    C = _conjugate(arrays["kernel.C"])  # its A_imag has our sign, an S4Block's has not
    return {
        "layer.D": arrays["D"][None],
        "layer.kernel.inv_dt": arrays["kernel.log_dt"][:, None],
        "layer.kernel.A_real": arrays["kernel.log_A_real"],
        "layer.kernel.A_imag": arrays["kernel.A_imag"],
        "layer.kernel.B": one.expand(1, *C.shape),
        "layer.kernel.C": C[None],
        **{name: x for name, x in arrays.items() if name.startswith("output_linear.")},
    }


def _conjugate(pairs: Tensor) -> Tensor:
    """Conjugate complex numbers that are stored as pairs (..., 2)."""
    return pairs * pairs.new_tensor([1.0, -1.0])


def translate(arrays: Mapping[str, Tensor], clock: str = "log") -> dict[str, Tensor]:
    """Rename the arrays of a published block to a state dict of our S4 or S4D.

    Args:
        arrays  mapping  as `find_block` gives them, and `check_block` accepts
        clock   str      "log" if the stored clocks are ln dt, "softplus" if inverse softplus
    Returns:
        state_dict  dict  of an S4 or S4D; C in float64 if it had to be undone
    Raises:
        ValueError: if a C-tilde cannot be undone.

    Error:  none, but for that of `undo_c_tilde`. Differentiable.
    Source: our eq-published-conjugate, eq-published-undo, eq-published-two-sided.
    """
    arrays, at = _as_s4block(arrays), "layer.kernel."
    values = {
        "D": arrays["layer.D"][0],
        "kernel.log_dt" if clock == "log" else "kernel.inv_dt": arrays[at + "inv_dt"][:, 0],
        "kernel.Lambda_log_re": arrays[at + "A_real"],
        "kernel.Lambda_im": arrays[at + "A_imag"],
        "kernel.B": _conjugate(arrays[at + "B"][0]),
        "kernel.C": _conjugate(arrays[at + "C"]),
    }
    if at + "P" in arrays:
        values["kernel.P"] = _conjugate(arrays[at + "P"]).permute(1, 2, 0, 3)
        if L := int(arrays[at + "l_kernel"]):
            values["kernel.C"] = _without_length(values, L)
    for name in ("weight", "bias"):
        found = [x for k, x in arrays.items() if re.fullmatch(rf"output_linear\.(0\.)?{name}", k)]
        values |= {f"head.2.{name}": x[..., 0] if x.ndim == 3 else x for x in found}
    return values


def _without_length(values: Mapping[str, Tensor], L: int) -> Tensor:
    """The C (c, H, n, 2) of renamed values whose C is still the C-tilde of length L."""
    own = {name.removeprefix("kernel."): x.double() for name, x in values.items()}
    dt = own["log_dt"].exp() if "log_dt" in own else F.softplus(own["inv_dt"], threshold=40)
    Lambda = torch.complex(-own["Lambda_log_re"].exp(), own["Lambda_im"])
    P, Ct = (torch.view_as_complex(own[name].contiguous()) for name in ("P", "C"))
    copies = len(dt) // len(P)
    C = undo_c_tilde(Ct, Lambda.repeat(copies, 1), P.repeat(copies, 1, 1), dt, L)
    return torch.view_as_real(C)


def from_state_spaces(
    state_dict: Mapping[str, Tensor],
    *,
    prefix: str | None = None,
    clock: str = "log",
    disc: str | None = None,
    activation: str | None = "gelu",
    dropout: float = 0.0,
) -> S4 | S4D:
    """Make our layer out of the weights of a block of state-spaces/s4: equal outputs.

    Args:
        state_dict  mapping      of an S4Block (version 4, with P or diagonal) or of s4d.py's S4D;
                                 its A_real is read as log(-Re Lambda)
        prefix      str or None  what stands before the block's names; None if there is one block
        clock       str          what its inv_dt is: "log" or "softplus"; no file says which
        disc        str or None  "zoh" or "bilinear" if diagonal; None: "zoh", with P "bilinear"
        activation, dropout      of the layer; no file says them either
    Returns:
        layer  S4 with a low rank term, S4D without; device and dtype are those of the weights
    Raises:
        TypeError, ValueError: if an argument or an array is not as wanted, or anything does not
            fit.

    Source: Gu et al. 2022 (S4), sec. 3.4, and its code; our eq-published-conjugate, -undo.
    """
    arrays = find_block(state_dict, prefix)
    options = _options(arrays, check_block(arrays), clock, disc)
    return _build(translate(arrays, clock), **options, activation=activation, dropout=dropout)


def _options(
    arrays: Mapping[str, Tensor], sizes: Mapping[str, int], clock: str, disc: str | None
) -> dict[str, Any]:
    """Arguments of the layer that the arrays decide; raise unless the caller's agree with them."""
    minimal, rank = "kernel.log_dt" in arrays, sizes["r"]
    clocks = ("log",) if minimal else ("log", "softplus")
    discs = ("bilinear",) if rank else ("zoh",) if minimal else ("zoh", "bilinear")
    disc = discs[0] if disc is None else disc
    for name, value, known in [("clock", clock, clocks), ("disc", disc, discs)]:
        if not (isinstance(value, str) and value in known):
            raise ValueError(f"want {name} one of {list(known)} for this block, got {value!r}")
    C = arrays["kernel.C" if minimal else "layer.kernel.C"]
    linear = "linear" if "output_linear.weight" in arrays else None
    options = {"n_ssm": sizes["S"], "clock": clock, "bidirectional": sizes["c"] == 2}
    options |= {"mixer": "glu" if "G" in sizes else linear, "dtype": C.dtype}
    return options if rank else options | {"disc": disc}


def _build(values: Mapping[str, Tensor], **options: Any) -> S4 | S4D:
    """The layer with such values. What its constructor draws is overwritten, and not missed."""
    H, n = values["kernel.C"].shape[1:3]
    with torch.random.fork_rng(devices=[]):  # drawn on the CPU: no device's generator moves
        if "kernel.P" in values:
            P = torch.view_as_complex(values["kernel.P"][0].detach().cpu().double().contiguous())
            init = (-torch.ones_like(P[:, 0]), P, P[:, 0])
            layer = S4(H, 2 * n, init=init, device="cpu", **options)
        else:
            layer = S4D(H, 2 * n, device="cpu", **options)
    layer.load_state_dict(values)
    return layer.to(values["kernel.C"].device)
