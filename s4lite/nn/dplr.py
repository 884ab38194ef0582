"""The parameters of a bank of diagonal plus low rank state spaces, and the views of that bank.

Home: chapter 12, "S4 as a layer" (chapters/12b_s4_layer.ipynb).
"""

from typing import Any

import torch
from torch import Tensor, nn

from s4lite.init.nplr import nplr
from s4lite.nn.clock import check_clocks, target_of
from s4lite.nn.kernel import PairStates, _check_range, initial_values
from s4lite.nn.steps import Fold, dplr_fold, kept_step
from s4lite.ops.checks import check_length, check_positive, check_state_size, check_tensors
from s4lite.ops.chunk import dplr_chunks
from s4lite.ops.dplr import dplr_kernel, dplr_step
from s4lite.ops.dplr_state import dplr_last_state, dplr_response
from s4lite.ops.scan import dplr_scan

__all__ = ["DPLRKernel", "DPLRParameters", "initial_system"]


def _given_system(init: tuple, d_state: int) -> tuple[Tensor, Tensor, Tensor]:
    """The caller's own Lambda, P, B as complex128 on the CPU; raise unless they are a system."""
    if not (isinstance(init, tuple) and len(init) in (3, 4)):
        want = '"legs", "legt", "lagt", "fout" or a tuple Lambda, P, B'
        raise ValueError(f"want init as {want}, got {init!r:.60}")
    Lambda, P, B = init[:3]
    check_tensors(Lambda=Lambda, P=P, B=B)
    n = d_state // 2
    shapes = Lambda.shape == B.shape == (n,) and P.ndim == 2 and P.shape[0] == n and P.shape[1] > 0
    if not (shapes and Lambda.is_complex()) or Lambda.is_meta:
        got = ", ".join(f"{x.dtype} {tuple(x.shape)}" for x in (Lambda, P, B))
        want = f"complex Lambda ({n},), P ({n}, r), B ({n},)"
        raise ValueError(f"want init as {want}, got {got} on {Lambda.device}")
    if not bool((Lambda.real <= 0).all() and all(x.isfinite().all() for x in (Lambda, P, B))):
        raise ValueError("want init finite with Re Lambda <= 0, got something else")
    return tuple(x.detach().to("cpu", torch.complex128) for x in (Lambda, P, B))


def initial_system(
    init: str | tuple[Tensor, ...], d_state: int, min_decay: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Look up the system that a layer's argument `init` names, every pole fading a little.

    Args:
        init       str or tuple  "legs", "legt", "lagt", "fout", or Lambda (n,), P (n, r), B (n,)
                                 (an `NPLR` will do), n = N/2, Re Lambda <= 0
        d_state    int           N, even
        min_decay  float         > 0: poles with Re Lambda > -min_decay start there  [1/time]
    Returns:
        Lambda (n,), P (n, r), B (n,)  complex128, on the CPU, A = Lambda - P P^*
    Raises:
        TypeError: if d_state or min_decay is no number, or a part of init no tensor.
        ValueError: if d_state is odd or < 2, min_decay not finite and > 0, or init unknown, of
            other shapes, not finite, or unstable.

    Error:  lifting all poles by eps costs at most eps dt (l + 1/2) |C| |Bb| at lag l.
    Source: Gu et al. 2022 (S4), theorem 1; our eq-s4-lifted, eq-s4-lifted-steps.
    """
    check_state_size(d_state, "d_state")
    check_positive(min_decay=min_decay)
    if isinstance(init, str) and init not in ("legs", "legt", "lagt", "fout"):
        raise ValueError(f'want init one of "legs", "legt", "lagt", "fout", got {init!r}')
    named = nplr(init, d_state)[:3] if isinstance(init, str) else None
    Lambda, P, B = named or _given_system(init, d_state)
    return torch.complex(Lambda.real.clamp(max=-min_decay), Lambda.imag), P, B


class DPLRParameters(PairStates):
    """Real numbers that, whatever they are, mean H contracting systems Lambda - P P^*.

    Args:
        d_model, d_state  int           H systems of N/2 conjugate pairs
        init, min_decay   any           as for `initial_system`
        n_ssm, channels   int           sets of Lambda, P, B (h uses set h mod n_ssm); rows of C
        options           any           clock, dt_min, dt_max, device, dtype, as for `Clocks`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Goel et al. 2022 (SaShiMi), on stable S4; our eq-s4-hurwitz, eq-s4-poles.
    """

    logarithms = ("log_dt", "Lambda_log_re")
    diagonal = False

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | tuple[Tensor, ...] = "legs",
        n_ssm: int = 1,
        channels: int = 1,
        min_decay: float = 1e-4,
        **options: Any,
    ) -> None:
        check_clocks(d_model, n_ssm, **options)  # everything is looked at before the first draw
        check_length(channels, "channels")
        Lambda, P, B = initial_system(init, d_state, min_decay)
        weights = torch.cat([B, P.flatten()])
        _check_range(Lambda, weights, target_of(None, options.get("dtype")).dtype)
        super().__init__(d_model, d_state, n_ssm=n_ssm, **options)
        self.slow += ("Lambda_log_re", "Lambda_im", "P", "B")
        values = initial_values(Lambda, B, d_model, n_ssm, channels)
        values["P"] = torch.view_as_real(P).repeat(n_ssm, 1, 1, 1)
        like = next(self.parameters())  # the clock's
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value.to(like)))

    def modes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lambda (H, n), P (H, n, r), B (H, n), C (channels, H, n) as numbers, complex128."""
        copies = self.d_model // len(self.B)
        Lambda = torch.complex(-self.Lambda_log_re.double().exp(), self.Lambda_im.double())
        P, B, C = (torch.view_as_complex(x.double()) for x in (self.P, self.B, self.C))
        return Lambda.repeat(copies, 1), P.repeat(copies, 1, 1), B.repeat(copies, 1), C


class DPLRKernel(DPLRParameters):
    """The views of H diagonal plus low rank systems: kernel, response and end of a state, steps.

    Arguments as for `DPLRParameters`. States are (batch, H, N/2), complex, and belong to output
    row 0; signals are (batch, H, L) of `real_dtype`; `rate` > 0 multiplies every clock.

    Source: Gu et al. 2022 (S4), Algorithm 1; our eq-s4-hurwitz, eq-s4-response.
    """

    def forward(self, L: int, rate: float = 1.0) -> Tensor:
        """Compute the kernels (channels, H, L)."""
        system = (x.to(self.state_dtype) for x in self.modes())
        return dplr_kernel(*system, self.steps(rate), L)

    def response(self, x: Tensor, L: int, rate: float = 1.0) -> Tensor:
        """Compute what the state x (batch, H, N/2) still says: (batch, H, L)."""
        Lambda, P, _, C = self.modes()
        return dplr_response(Lambda, P, C[0], self.steps(rate), x, L)

    def last_state(
        self, u: Tensor, x: Tensor | None = None, rate: float = 1.0, lengths: Any = None
    ) -> Tensor:
        """Compute the state after u (batch, H, L), each row at its own end: (batch, H, N/2)."""
        Lambda, P, B, _ = self.modes()
        return dplr_last_state(Lambda, P, B, self.steps(rate), u, x, lengths)

    def step(
        self, u_t: Tensor, x: Tensor, rate: float = 1.0, gaps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take in u_t (batch, H), `gaps` (batch,) after the state x: the output, the next state."""
        if (done := kept_step(self, u_t, x, rate, gaps)) is not None:
            return done
        (Lambda, P, B, C), dt = self.modes(), self.steps(rate)
        dt = dt if gaps is None else dt * gaps[:, None]
        return dplr_step(Lambda, P, B, C[0], dt, u_t, x)

    def folded(self, rate: float = 1.0) -> Fold:
        """What a step multiplies by, a function of the parameters alone."""
        return dplr_fold(*self.modes()[:3], self.steps(rate))

    def scan(
        self, u: Tensor, gaps: Tensor, x: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Walk along u (batch, H, L), samples `gaps` (batch, L) apart: outputs, the last state."""
        (Lambda, P, B, C), dt = self.modes(), self.steps(rate)[:, None] * gaps[:, None]
        y, x = dplr_scan(Lambda, P, B, C[0], dt, u, x)
        return y, x.to(self.state_dtype)

    def chunks(
        self, u: Tensor, x: Tensor | None = None, rate: float = 1.0, row: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Run output row `row` over u (batch, H, L), chunk by chunk: outputs and last state."""
        Lambda, P, B, C = self.modes()
        return dplr_chunks(Lambda, P, B, C[row], self.steps(rate), u, x)
