"""The parameters of a bank of diagonal state spaces, and the views of that bank.

Home: chapter 12, "The layer" (chapters/12_layer.ipynb).
"""

from typing import Any

import torch
from torch import Tensor, nn

from s4lite.init.diagonal import s4d_inv, s4d_lin, s4d_random, s4d_real
from s4lite.init.nplr import nplr
from s4lite.nn.checks import check_state
from s4lite.nn.clock import Clocks, check_clocks, target_of
from s4lite.nn.steps import Fold, diag_fold, kept_step
from s4lite.ops import checks
from s4lite.ops.checks import check_disc, check_length, check_tensors
from s4lite.ops.chunk import diag_chunks
from s4lite.ops.diag_state import diag_last_state, diag_response, diag_step
from s4lite.ops.scan import diag_scan
from s4lite.ops.vandermonde import log_discretize, vandermonde

__all__ = ["DiagKernel", "DiagParameters", "PairStates", "initial_modes", "initial_values"]


def _given_poles(init: Tensor, d_state: int) -> Tensor:
    """The caller's own poles as complex128 on the CPU; raise unless they are n, finite, Re < 0."""
    check_tensors(init=init)
    if init.shape != (d_state // 2,) or not init.is_complex() or init.is_meta:
        got = f"{init.dtype} {tuple(init.shape)} on {init.device}"
        raise ValueError(f"want init as complex poles ({d_state // 2},), got {got}")
    if not bool(((init.real < 0) & init.isfinite()).all()):
        raise ValueError(f"want finite poles with Re < 0, got {init.tolist()}")
    return init.detach().to("cpu", torch.complex128)


def initial_modes(init: str | Tensor, d_state: int) -> tuple[Tensor, Tensor]:
    """Look up the poles and input weights that a layer's argument `init` names.

    Args:
        init     str or (n,)  "legs", "lin", "inv", "real", "random", or n = N/2 complex poles
        d_state  int          N, even
    Returns:
        Lambda  (n,)  complex128, Re < 0, on the CPU  [1/time]
        B       (n,)  complex128, on the CPU: for "legs" that of HiPPO-LegS, else 1
    Raises:
        TypeError: if d_state is no int, or init neither a name nor a tensor.
        ValueError: if d_state is odd or < 2, or init unknown, of another shape, without values
            (meta), or not stable.

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-poles.
    """
    checks.check_state_size(d_state, "d_state")
    named = {"inv": s4d_inv, "lin": s4d_lin, "random": s4d_random, "real": s4d_real}
    if isinstance(init, str) and init == "legs":
        model = nplr("legs", d_state)
        return model.Lambda, model.B
    if isinstance(init, str) and init not in named:
        names = sorted([*named, "legs"])
        raise ValueError(f"want init one of {names} or a tensor of poles, got {init!r}")
    Lambda = named[init](d_state) if isinstance(init, str) else _given_poles(init, d_state)
    return Lambda, torch.ones_like(Lambda)


def initial_values(
    Lambda: Tensor, B: Tensor, d_model: int, n_ssm: int, channels: int
) -> dict[str, Tensor]:
    """Draw the real numbers with which a bank of diagonal systems starts, but for its clocks.

    Args:
        Lambda    (n,)  complex, Re < 0, on the CPU  [1/time]
        B         (n,)  complex, on the CPU
        d_model   int   H, channels
        n_ssm     int   copies of the poles, and of B
        channels  int   output rows C for each system
    Returns:
        dict  Lambda_log_re and Lambda_im (n_ssm, n), B (n_ssm, n, 2), C (channels, H, n, 2)

    Source: Gu et al. 2022 (S4D), sec. 4; our eq-layer-poles, eq-layer-variance.
    """
    return {
        "Lambda_log_re": (-Lambda.real).log().repeat(n_ssm, 1),
        "Lambda_im": Lambda.imag.repeat(n_ssm, 1),
        "B": torch.view_as_real(B).repeat(n_ssm, 1, 1),
        "C": torch.randn(channels, d_model, len(Lambda), 2, device="cpu") * 0.5**0.5,
    }


def _check_range(Lambda: Tensor, B: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError unless dtype can hold the numbers that stand for poles and weights."""
    held = torch.cat([(-Lambda.real).log(), Lambda.imag, B.real, B.imag]).to(dtype)
    if not bool(held.isfinite().all()):
        got = f"|Lambda| up to {Lambda.abs().max():g}, |B| up to {B.abs().max():g}"
        raise ValueError(f"want poles and weights that {dtype} can hold, got {got}")


class PairStates(Clocks):
    """H clocks, and systems behind them whose states are N/2 complex numbers, one of each pair.

    Args:
        d_model, d_state  int  H channels; N, even
        options           any  clock, n_ssm, dt_min, dt_max, device, dtype, as for `Clocks`

    Whoever inherits registers C, rows of real pairs: states are as fine as C, float32 at least.
    """

    def __init__(self, d_model: int, d_state: int, **options: Any) -> None:
        super().__init__(d_model, **options)
        self.d_state = d_state

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of signals and kernels: that of the parameters, float32 at least."""
        return torch.promote_types(self.C.dtype, torch.float32)

    @property
    def state_dtype(self) -> torch.dtype:
        """The dtype of states: complex, and as fine as `real_dtype`."""
        return torch.promote_types(self.C.dtype, torch.complex64)

    def initial_state(self, batch: int) -> Tensor:
        """Make a state that remembers nothing: (batch, H, N/2) complex zeros."""
        check_length(batch, "batch")
        size = (batch, self.d_model, self.d_state // 2)
        return torch.zeros(size, dtype=self.state_dtype, device=self.C.device)

    def check_state(self, x: Tensor, batch: int) -> None:
        """Raise unless x is a state (batch, H, N/2) of these systems."""
        check_state(x, (batch, self.d_model, self.d_state // 2), self.C)


class DiagParameters(PairStates):
    """Real numbers that, whatever they are, mean H stable diagonal systems.

    Args:
        d_model, d_state  int          H systems of N/2 conjugate pairs
        init              str or (n,)  as for `initial_modes`
        disc              str          "zoh" or "bilinear"
        n_ssm, channels   int          sets of poles and B (h uses set h mod n_ssm); rows of C
        options           any          clock, dt_min, dt_max, device, dtype, as for `Clocks`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Gu et al. 2022 (S4D), sec. 3; our eq-layer-poles, eq-layer-stable.
    """

    logarithms = ("log_dt", "Lambda_log_re")
    diagonal = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | Tensor = "lin",
        disc: str = "zoh",
        n_ssm: int = 1,
        channels: int = 1,
        **options: Any,
    ) -> None:
        check_clocks(d_model, n_ssm, **options)  # everything is looked at before the first draw
        check_disc(disc)
        check_length(channels, "channels")
        Lambda, B = initial_modes(init, d_state)
        _check_range(Lambda, B, target_of(None, options.get("dtype")).dtype)
        super().__init__(d_model, d_state, n_ssm=n_ssm, **options)
        self.disc = disc
        self.slow += ("Lambda_log_re", "Lambda_im", "B")
        like = next(self.parameters())  # the clock's
        for name, value in initial_values(Lambda, B, d_model, n_ssm, channels).items():
            self.register_parameter(name, nn.Parameter(value.to(like)))

    def modes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Lambda (H, n), B (H, n) and C (channels, H, n) as numbers, all complex128."""
        copies = self.d_model // self.B.shape[0]
        Lambda = torch.complex(-self.Lambda_log_re.double().exp(), self.Lambda_im.double())
        B = torch.view_as_complex(self.B.double())
        return Lambda.repeat(copies, 1), B.repeat(copies, 1), torch.view_as_complex(self.C.double())

    def system(self, rate: float = 1.0, gaps: Tensor | None = None) -> tuple[Tensor, ...]:
        """nu, Bb (H, n), C (channels, H, n), complex128; gaps (batch,): nu, Bb (batch, H, n)."""
        (Lambda, B, C), dt = self.modes(), self.steps(rate)
        nu, phi = log_discretize(Lambda, dt if gaps is None else dt * gaps[:, None], self.disc)
        return nu, phi * B, C


class DiagKernel(DiagParameters):
    """The views of H diagonal systems: kernel, response and end of a state, steps and scans.

    Arguments as for `DiagParameters`. States are (batch, H, N/2), complex, and belong to output
    row 0; signals are (batch, H, L) of `real_dtype`; `rate` > 0 multiplies every clock; `gaps` > 0
    tell how far each sample is from the one before, in units of the usual spacing.

    Source: Gu et al. 2022 (S4D), sec. 3; our eq-layer-bank, -step, -state, -gaps.
    """

    def forward(self, L: int, rate: float = 1.0) -> Tensor:
        """Compute the kernels (channels, H, L)."""
        nu, Bb, C = self.system(rate)
        return vandermonde(C * Bb, nu, L, self.real_dtype)

    def response(self, x: Tensor, L: int, rate: float = 1.0) -> Tensor:
        """Compute what the state x (batch, H, N/2) still says: (batch, H, L)."""
        nu, _, C = self.system(rate)
        return diag_response(nu, C[0], x, L)

    def last_state(
        self, u: Tensor, x: Tensor | None = None, rate: float = 1.0, lengths: Any = None
    ) -> Tensor:
        """Compute the state after u (batch, H, L), each row at its own end: (batch, H, N/2)."""
        nu, Bb, _ = self.system(rate)
        return diag_last_state(nu, Bb, u, x, lengths)

    def step(
        self, u_t: Tensor, x: Tensor, rate: float = 1.0, gaps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take in u_t (batch, H), `gaps` (batch,) after state x: the output and the next state."""
        if (done := kept_step(self, u_t, x, rate, gaps)) is not None:
            return done
        nu, Bb, C = self.system(rate, gaps)
        return diag_step(nu, Bb, C[0], u_t, x)

    def folded(self, rate: float = 1.0) -> Fold:
        """What a step multiplies by, a function of the parameters alone."""
        return diag_fold(*self.system(rate)[:2])

    def scan(
        self, u: Tensor, gaps: Tensor, x: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Walk along u (batch, H, L), `gaps` (batch, L) apart: the outputs and the last state."""
        (Lambda, B, C), dt = self.modes(), self.steps(rate)[:, None] * gaps[:, None]
        y, x = diag_scan(Lambda, B, C[0], dt, u, x, self.disc)
        return y, x.to(self.state_dtype)

    def chunks(
        self, u: Tensor, x: Tensor | None = None, rate: float = 1.0, row: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Run output row `row` over u (batch, H, L), chunk by chunk: outputs and last state."""
        nu, Bb, C = self.system(rate)
        return diag_chunks(nu, Bb, C[row], u, x)
