"""The parameters of a bank of diagonal state spaces, and the views of that bank.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

import math

import torch
from torch import Tensor, nn

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.nn.checks import check_state
from s4lite.nn.loading import StrictLoading
from s4lite.ops import checks
from s4lite.ops.checks import check_disc, check_length, check_positive, check_tensors
from s4lite.ops.diag_state import diag_last_state, diag_response, diag_step
from s4lite.ops.vandermonde import log_discretize, vandermonde

__all__ = [
    "DiagKernel",
    "DiagParameters",
    "check_clocks",
    "check_rate",
    "initial_poles",
    "initial_values",
    "target_of",
]


def initial_poles(init: str | Tensor, d_state: int) -> Tensor:
    """Look up the poles that a layer's argument `init` names.

    Args:
        init     str or (n,)  "lin", "inv", or n = N/2 complex poles  [1/time]
        d_state  int          N, even
    Returns:
        Lambda  (n,)  complex128, Re < 0, on the CPU  [1/time]
    Raises:
        TypeError: if d_state is no int, or init neither a name nor a tensor.
        ValueError: if d_state is odd or < 2, or init unknown, of another shape, without values
            (meta), or not stable.

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-poles.
    """
    checks.check_state_size(d_state, "d_state")
    named = {"lin": s4d_lin, "inv": s4d_inv}
    if isinstance(init, str) and init in named:
        return named[init](d_state)
    if isinstance(init, str):
        raise ValueError(f"want init one of {sorted(named)} or a tensor of poles, got {init!r}")
    check_tensors(init=init)
    if init.shape != (d_state // 2,) or not init.is_complex() or init.is_meta:
        got = f"{init.dtype} {tuple(init.shape)} on {init.device}"
        raise ValueError(f"want init as complex poles ({d_state // 2},), got {got}")
    if not bool(((init.real < 0) & init.isfinite()).all()):
        raise ValueError(f"want finite poles with Re < 0, got {init.tolist()}")
    return init.detach().to("cpu", torch.complex128)


def check_clocks(d_model: int, n_ssm: int, dt_min: float, dt_max: float) -> None:
    """Raise unless n_ssm systems can serve d_model channels and 0 < dt_min <= dt_max.

    Args:
        d_model         int    H, channels
        n_ssm           int    independent sets of poles, a divisor of H
        dt_min, dt_max  float  the range of the steps  [time]
    Raises:
        TypeError: if d_model or n_ssm is no int.
        ValueError: if one is < 1, n_ssm does not divide d_model, or the range is empty, NaN
            or not > 0.
    """
    check_length(d_model, "d_model")
    check_length(n_ssm, "n_ssm")
    if d_model % n_ssm:
        raise ValueError(f"want n_ssm to divide d_model, got n_ssm={n_ssm}, d_model={d_model}")
    check_positive(dt_min=dt_min, dt_max=dt_max)
    if dt_min > dt_max:
        raise ValueError(f"want dt_min <= dt_max, got dt_min={dt_min}, dt_max={dt_max}")


def initial_values(
    poles: Tensor, d_model: int, n_ssm: int, channels: int, dt_min: float, dt_max: float
) -> dict[str, Tensor]:
    """Draw the real numbers with which a bank of diagonal systems starts.

    Args:
        poles           (n,)   complex, Re < 0, on the CPU  [1/time]
        d_model         int    H, channels: a clock for each
        n_ssm           int    copies of the poles, and of B
        channels        int    output rows C for each system
        dt_min, dt_max  float  the range of the clocks  [time]
    Returns:
        dict  log_dt (H,), Lambda_log_re and Lambda_im (n_ssm, n), B (n_ssm, n, 2),
              C (channels, H, n, 2), all on the CPU

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-poles, eq-layer-octave, eq-layer-variance.
    """
    check_length(channels, "channels")
    n, cpu = len(poles), {"device": "cpu"}
    return {
        "log_dt": torch.empty(d_model, **cpu).uniform_(math.log(dt_min), math.log(dt_max)),
        "Lambda_log_re": (-poles.real).log().repeat(n_ssm, 1),
        "Lambda_im": poles.imag.repeat(n_ssm, 1),
        "B": torch.tensor([1.0, 0.0], **cpu).repeat(n_ssm, n, 1),
        "C": torch.randn(channels, d_model, n, 2, **cpu) * 0.5**0.5,
    }


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


def _check_range(poles: Tensor, dt_min: float, dt_max: float, dtype: torch.dtype) -> None:
    """Raise ValueError unless dtype can hold the numbers that stand for poles and clocks."""
    logs = torch.tensor([math.log(dt_min), math.log(dt_max)], dtype=torch.float64, device="cpu")
    logs = torch.cat([logs, (-poles.real).log()]).to(dtype).double().exp()
    if not bool((logs.isfinite() & (logs > 0)).all() and poles.imag.to(dtype).isfinite().all()):
        got = f"|Lambda| up to {poles.abs().max():g}, dt from {dt_min:g} to {dt_max:g}"
        raise ValueError(f"want poles and clocks that {dtype} can hold, got {got}")


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


class DiagParameters(StrictLoading):
    """Real numbers that, whatever they are, mean H stable diagonal systems.

    Args:
        d_model, d_state  int          H systems of N/2 conjugate pairs
        init              str or (n,)  "lin", "inv", or n = N/2 complex poles  [1/time]
        disc              str          "zoh" or "bilinear"
        n_ssm, channels   int          sets of poles and B (h uses set h mod n_ssm); rows of C
        dt_min, dt_max    float        the clocks start log-uniformly between these  [time]
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Gu et al. 2022 (S4D), sec. 3; our eq-layer-poles, eq-layer-stable.
    """

    logarithms = ("log_dt", "Lambda_log_re")

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | Tensor = "lin",
        disc: str = "zoh",
        n_ssm: int = 1,
        channels: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_clocks(d_model, n_ssm, dt_min, dt_max)
        check_disc(disc)
        self.d_model, self.d_state, self.disc = d_model, d_state, disc
        poles, like = initial_poles(init, d_state), target_of(device, dtype)
        _check_range(poles, dt_min, dt_max, like.dtype)
        for name, value in initial_values(poles, d_model, n_ssm, channels, dt_min, dt_max).items():
            self.register_parameter(name, nn.Parameter(value.to(like)))

    def system(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Discretize at `rate`: nu (H, n), Bb (H, n), C (channels, H, n), all complex128."""
        check_rate(rate, self.log_dt)
        copies = self.d_model // self.B.shape[0]
        Lambda = torch.complex(-self.Lambda_log_re.double().exp(), self.Lambda_im.double())
        dt = self.log_dt.double().exp() * rate
        nu, phi = log_discretize(Lambda.repeat(copies, 1), dt, self.disc)
        B = torch.view_as_complex(self.B.double()).repeat(copies, 1)
        return nu, phi * B, torch.view_as_complex(self.C.double())


class DiagKernel(DiagParameters):
    """The views of H diagonal systems: kernel, response and end of a state, single steps.

    Arguments as for `DiagParameters`. States are (batch, H, N/2), complex, and belong to output
    row 0; signals are (batch, H, L) of `real_dtype`; `rate` > 0 multiplies every clock.

    Source: Gu et al. 2022 (S4D), sec. 3; our eq-layer-bank, eq-layer-step, eq-layer-state.
    """

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of signals and kernels: that of the parameters, float32 at least."""
        return torch.promote_types(self.log_dt.dtype, torch.float32)

    def initial_state(self, batch: int) -> Tensor:
        """Make a state that remembers nothing: (batch, H, N/2) complex zeros."""
        check_length(batch, "batch")
        size = (batch, self.d_model, self.d_state // 2)
        dtype = torch.promote_types(self.log_dt.dtype, torch.complex64)
        return torch.zeros(size, dtype=dtype, device=self.log_dt.device)

    def check_state(self, x: Tensor, batch: int) -> None:
        """Raise unless x is a state (batch, H, N/2) of these systems."""
        check_state(x, (batch, self.d_model, self.d_state // 2), self.log_dt)

    def forward(self, L: int, rate: float = 1.0) -> Tensor:
        """Compute the kernels (channels, H, L)."""
        check_length(L)
        nu, Bb, C = self.system(rate)
        return vandermonde(C * Bb, nu, L, self.real_dtype)

    def response(self, x: Tensor, L: int, rate: float = 1.0) -> Tensor:
        """Compute what the state x (batch, H, N/2) still says: (batch, H, L)."""
        nu, _, C = self.system(rate)
        return diag_response(nu, C[0], x, L)

    def last_state(
        self,
        u: Tensor,
        x: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
    ) -> Tensor:
        """Compute the state after u (batch, H, L), each row at its own end: (batch, H, N/2)."""
        nu, Bb, _ = self.system(rate)
        return diag_last_state(nu, Bb, u, x, lengths)

    def step(self, u_t: Tensor, x: Tensor, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Take in u_t (batch, H) at state x: the output (batch, H) and the next state."""
        nu, Bb, C = self.system(rate)
        return diag_step(nu, Bb, C[0], u_t, x)
