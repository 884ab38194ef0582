"""One voice for bad input: what was wanted, and what came.

Home: chapter 02, "State space" (chapters/02_state_space.ipynb), and chapter 11, "Diagonal"
(chapters/11_diagonal.ipynb), and chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import math
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "can_look",
    "check_axes",
    "check_disc",
    "check_ends",
    "check_exponents",
    "check_length",
    "check_positive",
    "check_stable",
    "check_state_size",
    "check_tensors",
]


def check_tensors(**tensors: Tensor) -> None:
    """Raise unless every argument is a floating or complex tensor and all are on one device.

    Args:
        tensors  any shape  the tensors, under the names that the message shall use
    Raises:
        TypeError: if one is no tensor, or holds integers or booleans.
        ValueError: if they are on different devices.
    """
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"want {name} as a torch.Tensor, got {type(x).__name__}")
        if not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"want {name} of a floating or complex dtype, got {x.dtype}")
    if len({x.device for x in tensors.values()}) > 1:
        where = ", ".join(f"{name} on {x.device}" for name, x in tensors.items())
        raise ValueError(f"want all tensors on one device, got {where}")


def check_length(L: int, name: str = "L") -> None:
    """Raise unless L is a whole number, at least 1.

    Args:
        L     int  the length
        name  str  its name in the message
    Raises:
        TypeError: if L is no int (a bool is none).
        ValueError: if L < 1.
    """
    if isinstance(L, bool) or not isinstance(L, (int, torch.SymInt)):
        raise TypeError(f"want {name} as an int, got {type(L).__name__}")
    if L < 1:
        raise ValueError(f"want {name} >= 1, got {L}")


def can_look(x: Tensor) -> bool:
    """Tell whether reading a tensor's values costs nothing.

    On an accelerator a look at the values would stop the host until the device has caught up;
    under compilation and inside torch.vmap there is no value to look at.

    Args:
        x  any shape  the tensor
    Returns:
        bool  True for a plain tensor on the CPU, outside compilation and torch.vmap
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    if type(x) not in (Tensor, torch.nn.Parameter):  # a fake tensor says "cpu", and holds nothing
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):  # grad inside vmap hides it one level down
        if functorch.is_batchedtensor(x):
            return False
        x = functorch.get_unwrapped(x)
    return True


def check_positive(**values: Tensor | float) -> None:
    """Raise unless every value is finite and > 0 (tensors: where `can_look`).

    Args:
        values  any shape  tensors or numbers, under the names that the message shall use
    Raises:
        TypeError: if one is neither a real tensor nor a real number (a bool is none).
        ValueError: if one holds a value that is not finite, or not > 0.
    """
    for name, x in values.items():
        if isinstance(x, Tensor):
            if x.is_complex() or x.dtype == torch.bool:
                raise TypeError(f"want {name} real, got {x.dtype}")
            if can_look(x) and len(bad := x[~((x > 0) & x.isfinite())]):
                got = f"{bad[0]:g} among {x.numel()} values"
                raise ValueError(f"want {name} finite and > 0, got {got}")
        elif isinstance(x, bool) or not isinstance(x, (Real, torch.SymInt, torch.SymFloat)):
            raise TypeError(
                f"want {name} as a number or a tensor, got {type(x).__name__} {x!r:.40}"
            )
        elif not 0 < x < math.inf:
            raise ValueError(f"want {name} finite and > 0, got {x}")


def check_stable(Lambda: Tensor) -> None:
    """Raise unless all poles are finite with real part <= 0 (where `can_look`).

    Args:
        Lambda  any shape  poles, complex or real  [1/time]
    Raises:
        ValueError: if one is not finite, or to the right of the imaginary axis.
    """
    if can_look(Lambda):
        bad = Lambda[~((Lambda.real <= 0) & Lambda.isfinite())]
        if len(bad):
            got = f"{bad[0].item():g} among {Lambda.numel()} poles"
            raise ValueError(f"want finite poles with Re Lambda <= 0, got {got}")


def check_state_size(N: int, name: str = "N") -> None:
    """Raise unless N is an even whole number, at least 2: N/2 conjugate pairs are stored.

    Args:
        N     int  the state size
        name  str  its name in the message
    Raises:
        TypeError: if N is no int (a bool is none).
        ValueError: if N < 2, or odd.
    """
    check_length(N, name)
    if N % 2:
        raise ValueError(f"want {name} even (conjugate pairs, one of each is stored), got {N}")


def check_disc(disc: str) -> None:
    """Raise unless disc names a rule for diagonal systems.

    Args:
        disc  str  "zoh" or "bilinear"
    Raises:
        ValueError: if it is anything else.
    """
    if disc not in ("zoh", "bilinear"):
        raise ValueError(f'want disc "zoh" or "bilinear", got {disc!r}')


def check_axes(samples: dict[str, Tensor], **modes: Tensor) -> None:
    """Raise unless modes (..., n) share one width n, and all leading axes broadcast.

    Args:
        samples  dict      tensors (...), one number a system, by the names for the message
        modes    (..., n)  tensors with one number a mode
    Raises:
        TypeError: if one is no floating or complex tensor.
        ValueError: if widths, leading axes or devices do not fit.
    """
    check_tensors(**modes, **samples)
    widths, fault = {x.shape[-1] if x.ndim else 0 for x in modes.values()}, ""
    try:
        torch.broadcast_shapes(
            *(x.shape[:-1] for x in modes.values()), *(x.shape for x in samples.values())
        )
    except RuntimeError:
        fault = "leading axes that broadcast"
    if len(widths) > 1 or 0 in widths:
        fault = f"{', '.join(modes)} (..., n) of one width n >= 1"
    if fault:
        got = ", ".join(f"{name} {tuple(x.shape)}" for name, x in {**modes, **samples}.items())
        raise ValueError(f"want {fault}, got {got}")


def check_exponents(nu: Tensor) -> None:
    """Raise unless nu is complex and (where `can_look`) of Re <= 0 up to rounding, not huge.

    Args:
        nu  any shape  logarithms of discrete poles
    Raises:
        TypeError: if nu is real.
        ValueError: if Re nu > 1e-12, or |nu| >= 1e290 or not finite.
    """
    if not nu.is_complex():
        raise TypeError(f"want nu complex, one exponent of each pair, got {nu.dtype}")
    if can_look(nu) and len(bad := nu[~((nu.real < 1e-12) & (nu.abs() < 1e290))]):
        got = f"{bad[0].item():g} among {nu.numel()} exponents"
        raise ValueError(f"want nu finite (|nu| < 1e290) with Re nu <= 0, got {got}")


def _from_numbers(lengths: object) -> Tensor:
    """Make a tensor on the CPU of a list, an array or a number; TypeError if that fails."""
    try:
        return torch.as_tensor(lengths, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"want lengths as whole numbers, got {lengths!r:.60}") from None


def check_ends(lengths: Tensor | list[int], batch: int, L: int, device: torch.device) -> Tensor:
    """Bring the lengths of padded sequences into one form.

    Args:
        lengths   (batch,)      whole numbers from 1 to L
        batch, L  int           how many sequences, and how long they are with their padding
        device    torch.device  where they are wanted
    Returns:
        lengths  (batch,)  int64
    Raises:
        TypeError: if they are no whole numbers.
        ValueError: if there is not one a sequence, (where `can_look`) one is < 1 or beyond L, or
            they are on the meta device and wanted elsewhere.
    """
    if not isinstance(lengths, Tensor):
        lengths = _from_numbers(lengths)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"want lengths as whole numbers, got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(f"want lengths ({batch},), one a sequence, got {tuple(lengths.shape)}")
    if lengths.is_meta and device.type != "meta":
        raise ValueError("want lengths with values, got a meta tensor")
    lengths = lengths.to(torch.int64)
    if can_look(lengths) and not bool(((lengths >= 1) & (lengths <= L)).all()):
        raise ValueError(f"want lengths from 1 to L = {L}, got {lengths.tolist()}")
    return lengths.to(device)
