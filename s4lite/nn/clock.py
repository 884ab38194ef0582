"""The clocks of a layer: how fast each channel's time goes, and in which numbers that is stored.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.nn.loading import StrictLoading
from s4lite.ops.checks import check_length, check_positive, check_tensors

__all__ = ["Clocks", "check_clocks", "check_rate", "initial_clocks", "target_of"]


def check_clocks(
    d_model: int,
    n_ssm: int = 1,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    *,
    clock: str = "log",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Raise unless these are arguments of `Clocks`.

    Args:
        d_model         int    H, channels
        n_ssm           int    independent sets of poles, a divisor of H
        dt_min, dt_max  float  the range of the steps, 0 < dt_min <= dt_max  [time]
        clock           str    "log" or "softplus"
        device, dtype   any    of the parameter that will hold them
    Raises:
        TypeError: if d_model or n_ssm is no int, or dtype none of those in which layers work.
        ValueError: if one is < 1, n_ssm does not divide d_model, clock is unknown, or the range
            is empty, NaN, not > 0, or beyond what dtype can hold.
    """
    check_length(d_model, "d_model")
    check_length(n_ssm, "n_ssm")
    if d_model % n_ssm:
        raise ValueError(f"want n_ssm to divide d_model, got n_ssm={n_ssm}, d_model={d_model}")
    check_positive(dt_min=dt_min, dt_max=dt_max)
    if dt_min > dt_max:
        raise ValueError(f"want dt_min <= dt_max, got dt_min={dt_min}, dt_max={dt_max}")
    _check_held(clock, dt_min, dt_max, target_of(device, dtype).dtype)


def target_of(device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    """Make an empty tensor of the device and dtype that a layer's parameters shall have.

    Args:
        device  torch.device, str or None  None for torch's default
        dtype   torch.dtype or None        a floating one; None for torch's default
    Returns:
        like  (0,)
    Raises:
        TypeError: if dtype is none of those in which layers work.
    """
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if not (dtype is None or isinstance(dtype, torch.dtype)) or dtype not in (None, *floats):
        raise TypeError(f"want a floating dtype of 16 to 64 bits, got {dtype!r}")
    return torch.empty(0, device=device, dtype=dtype)


def check_rate(rate: float | Tensor, like: Tensor) -> None:
    """Raise unless rate is one real number, finite and > 0 (where `can_look`).

    Args:
        rate  float or ()  a number, or a floating tensor without axes
        like  tensor       a parameter: a tensor is on its device, or on the CPU
    Raises:
        TypeError: if it is no number, or a tensor that is not real and floating.
        ValueError: if it has axes, is on another device, or not finite and > 0.
    """
    if isinstance(rate, Tensor):
        check_tensors(rate=rate)
        if rate.ndim or rate.device not in (torch.device("cpu"), like.device):
            got = f"a tensor {tuple(rate.shape)} on {rate.device}"
            raise ValueError(f"want rate as one number, got {got}")
    check_positive(rate=rate)


def initial_clocks(d_model: int, clock: str, dt_min: float, dt_max: float) -> Tensor:
    """Draw steps log-uniformly, in the numbers that stand for them.

    Args:
        d_model         int    H, channels
        clock           str    "log" or "softplus"
        dt_min, dt_max  float  the range of the steps  [time]
    Returns:
        stored  (H,)  on the CPU: ln dt, or the inverse softplus ln(e^dt - 1)

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-octave, eq-layer-softplus.
    """
    log_dt = torch.empty(d_model, device="cpu").uniform_(math.log(dt_min), math.log(dt_max))
    return log_dt if clock == "log" else _stored(log_dt.double().exp(), clock)


def _stored(dt: Tensor, clock: str) -> Tensor:
    """The number that stands for a step: ln dt, or ln(e^dt - 1) without overflow."""
    return dt.log() if clock == "log" else dt + (-torch.expm1(-dt)).log()


def _check_held(clock: str, dt_min: float, dt_max: float, dtype: torch.dtype) -> None:
    """Raise ValueError unless `clock` is "log" or "softplus", and dtype can hold such steps."""
    if not (isinstance(clock, str) and clock in ("log", "softplus")):
        raise ValueError(f'want clock "log" or "softplus", got {clock!r}')
    ends = torch.tensor([dt_min, dt_max], dtype=torch.float64, device="cpu")
    if not bool(_stored(ends, clock).to(dtype).isfinite().all()):
        raise ValueError(f"want clocks that {dtype} can hold, got dt from {dt_min:g} to {dt_max:g}")


class Clocks(StrictLoading):
    """H steps Delta > 0, whatever the numbers are in which they are stored.

    Args:
        d_model         int    H, channels: a clock for each
        clock           str    "log": Delta = exp(log_dt); "softplus": Delta = softplus(inv_dt)
        n_ssm           int    independent systems behind them, a divisor of H
        dt_min, dt_max  float  they start log-uniformly between these  [time]
        device, dtype   any    of the parameter
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-octave, eq-layer-softplus.
    """

    logarithms = ("log_dt",)
    softpluses = ("inv_dt",)
    slow: tuple[str, ...]  # names of the parameters that want a small learning rate, and no decay

    def __init__(
        self,
        d_model: int,
        *,
        clock: str = "log",
        n_ssm: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        like = {"device": device, "dtype": dtype}
        check_clocks(d_model, n_ssm, dt_min, dt_max, clock=clock, **like)
        self.d_model, self.clock = d_model, clock
        self.slow = ("log_dt" if clock == "log" else "inv_dt",)
        value = initial_clocks(d_model, clock, dt_min, dt_max)
        self.register_parameter(self.slow[0], nn.Parameter(value.to(target_of(**like))))

    def steps(self, rate: float = 1.0) -> Tensor:
        """The steps (H,) in float64, Delta times `rate`."""
        if self.clock == "log":
            check_rate(rate, self.log_dt)
            return self.log_dt.double().exp() * rate
        check_rate(rate, self.inv_dt)
        return F.softplus(self.inv_dt.double(), threshold=40) * rate
