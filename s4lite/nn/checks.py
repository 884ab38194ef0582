"""What a layer refuses: wrong axes, channels, dtypes, devices, states and lengths.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb), and chapter 15, "The model"
(chapters/15_model.ipynb).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from s4lite.ops.checks import check_ends, check_positive, check_tensors

__all__ = [
    "check_flags",
    "check_gaps",
    "check_lengths",
    "check_sequence",
    "check_state",
    "options_for",
    "padding_mask",
    "without_padding",
]


def check_sequence(u: Tensor, axes: str, width: int, like: Tensor) -> None:
    """Raise unless u has the axes, the number of channels, the dtype and device of a layer.

    Args:
        u      tensor  the input
        axes   str     names of its axes, "batch L d_model" or "batch d_model"
        width  int     wanted size of the last one
        like   tensor  a parameter of the layer
    Raises:
        TypeError: if u is no floating tensor, or of another dtype than `like` (under autocast
            both may be anything but float64).
        ValueError: if an axis is missing, empty or of the wrong size, or the device another.
    """
    if type(u) is Tensor and u.dtype is like.dtype and u.device == like.device:
        full = u.ndim == 1 + axes.count(" ") and u.is_floating_point() and 0 not in u.shape
        if full and u.shape[-1] == width:
            return  # most inputs; the rest is for the messages
    check_tensors(u=u, parameters=like)
    if u.ndim != len(axes.split()) or u.shape[-1] != width or 0 in u.shape:
        want = f"({axes.replace(' ', ', ')}), none empty, the last {width}"
        raise ValueError(f"want u {want}; got {tuple(u.shape)}")
    if u.dtype != like.dtype:
        short = u.is_floating_point() and torch.float64 not in (u.dtype, like.dtype)
        if not (short and torch.is_autocast_enabled(u.device.type)):
            raise TypeError(f"want u of the layer's dtype, {like.dtype}, got {u.dtype}")


def check_flags(**flags: bool) -> None:
    """Raise unless every argument is True or False.

    Args:
        flags  bool  the arguments, under the names that the message shall use
    Raises:
        TypeError: if one is anything else.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"want {name} as a bool, got {type(flag).__name__} {flag!r:.40}")


_STATES = {  # dtype of parameters: of complex states, of real ones
    torch.float32: (torch.complex64, torch.float32),
    torch.float64: (torch.complex128, torch.float64),
}


def check_state(x: Tensor, shape: tuple[int, ...], like: Tensor, *, real: bool = False) -> None:
    """Raise unless x is a state as `initial_state` makes them.

    Args:
        x      tensor        the state
        shape  tuple of int  wanted shape
        like   tensor        a parameter: its device, and its precision but float32 at least
        real   bool          states are real; without this they are complex
    Raises:
        TypeError: if x is no floating or complex tensor.
        ValueError: if its shape, dtype or device is another.
    """
    if type(x) is Tensor and x.shape == shape and x.device == like.device:
        known = _STATES.get(like.dtype)
        if known is not None and x.dtype is known[real]:
            return  # most states; the rest is for the messages
    check_tensors(state=x, parameters=like)
    dtype = torch.promote_types(like.dtype, torch.float32 if real else torch.complex64)
    if x.shape != shape or x.dtype != dtype:
        raise ValueError(f"want state {dtype} {shape}, got {x.dtype} {tuple(x.shape)}")


def check_lengths(lengths: Tensor | list[int], u: Tensor) -> Tensor:
    """Bring the lengths of right-padded sequences into one form.

    Args:
        lengths  (batch,)         whole numbers from 1 to L
        u        (batch, L, ...)  the padded sequences
    Returns:
        lengths  (batch,)  int64, on u's device
    Raises:
        TypeError: if they are no whole numbers.
        ValueError: if there is not one a sequence, or one is < 1 or beyond L.
    """
    return check_ends(lengths, u.shape[0], u.shape[1], u.device)


def padding_mask(lengths: Tensor, u: Tensor) -> Tensor:
    """Tell samples from padding.

    Args:
        lengths  (batch,)         whole numbers
        u        (batch, L, ...)  right-padded sequences
    Returns:
        keep  (batch, L, 1)  bool, True where u is real and False where it is padding
    """
    return (torch.arange(u.shape[1], device=u.device) < lengths[:, None])[..., None]


def check_gaps(dt: Tensor | float, u: Tensor, keep: Tensor | None = None) -> Tensor:
    """Bring the times between samples into one form.

    Args:
        dt    (batch, L) or (L,)           from the sample before, > 0  [usual spacings]
              (batch,) or (), or a number  if u is one sample a sequence
        u     (batch, L, d) or (batch, d)  the samples
        keep  (batch, L, 1)                bool, False where u is padding: there no time passes
    Returns:
        gaps  (batch, L) or (batch,)  float64, on u's device; 0 in the padding
    Raises:
        TypeError: if dt is no real floating tensor, nor (for one sample) a number.
        ValueError: if its shape or device is another, or (where `can_look`) a value that is no
            padding is not finite and > 0.
    """
    if u.ndim == 2 and not isinstance(dt, Tensor):
        check_positive(dt=dt)
        dt = torch.full((), float(dt), dtype=torch.float64, device=u.device)  # filled, not copied
    check_tensors(dt=dt, u=u)
    if dt.shape not in (u.shape[:-1], u.shape[1:-1]):
        names = "(batch, L) or (L,)" if u.ndim == 3 else "(batch,) or ()"
        raise ValueError(f"want dt {names} for u {tuple(u.shape)}, got {tuple(dt.shape)}")
    gaps = dt.expand(u.shape[:-1])
    gaps = gaps if keep is None else gaps.where(keep[..., 0], 1.0)
    check_positive(dt=gaps)
    return gaps.double() if keep is None else gaps.double().where(keep[..., 0], 0.0)


def options_for(layer: object, run: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the keyword arguments with which a layer is run: a dt only where there is one.

    Args:
        layer  any      has `takes_dt = True` if its `forward` and `step` know the argument dt
        run    mapping  keyword arguments
    Returns:
        run  dict  the same, without dt if that is None
    Raises:
        ValueError: if there is a dt, and the layer does not say that it `takes_dt`.
    """
    if run.get("dt") is not None and not getattr(layer, "takes_dt", False):
        raise ValueError(f"want a layer that takes dt, got {type(layer).__name__}")
    return {name: value for name, value in run.items() if name != "dt" or value is not None}


def without_padding(u: Tensor, lengths: Tensor | list[int] | None) -> Tensor:
    """Replace what stands beyond the end of right-padded sequences by zeros.

    Args:
        u        (batch, L) or (batch, L, d)  sequences or tokens
        lengths  (batch,)                     whole numbers from 1 to L; None: nothing is padding
    Returns:
        u  same shape  zeros (even for NaN) in the padding
    Raises:
        TypeError, ValueError: as `check_lengths` does.
    """
    if lengths is None:
        return u
    keep = padding_mask(check_lengths(lengths, u), u)
    return u.where(keep if u.ndim > 2 else keep[..., 0], 0)
