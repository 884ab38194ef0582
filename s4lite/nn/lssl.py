"""The linear state space layer: A, B, C, D and the clock learned, its kernel from matrix powers.

Home: chapter 07, "The first deep state space models, and what they cost"
(chapters/07_first_ssms.ipynb).
"""

import torch
from torch import Tensor, nn

from s4lite.init.hippo import hippo
from s4lite.nn.checks import check_flags, check_state
from s4lite.nn.clock import Clocks, check_clocks, target_of
from s4lite.nn.layer import SSMLayer, check_head, make_head
from s4lite.ops import recurrence
from s4lite.ops.checks import check_length, check_tensors
from s4lite.ops.discretize import bilinear
from s4lite.ops.krylov import krylov, krylov_last_state

__all__ = ["LSSL", "LSSLKernel", "LSSLParameters", "initial_matrices"]


def initial_matrices(init: str | tuple[Tensor, Tensor], d_state: int) -> tuple[Tensor, Tensor]:
    """Look up the matrices that a layer's argument `init` names.

    Args:
        init     str or pair  a measure ("legs", "legt", "lmu", "lagt", "fout"), or A (N, N), B (N,)
        d_state  int          N
    Returns:
        A  (N, N)  B  (N,)  float64, on the CPU
    Raises:
        TypeError: if d_state is no int, or A or B no floating tensor.
        ValueError: if the measure is unknown, or A and B not real, finite and of these shapes.

    Error:  stability is not asked for: computed eigenvalues of such matrices cannot be trusted.
    Source: Gu et al. 2021 (LSSL), sec. 4; our eq-hippo-legs, eq-window-legt, eq-window-lmu.
    """
    check_length(d_state, "d_state")
    if isinstance(init, str):
        return hippo(init, d_state)
    if not (isinstance(init, tuple) and len(init) == 2):
        raise ValueError(f"want init as the name of a measure or a pair A, B, got {init!r:.60}")
    A, B = init
    check_tensors(A=A, B=B)
    real = not (A.is_complex() or B.is_complex() or A.is_meta)
    if not real or A.shape != (d_state, d_state) or B.shape != (d_state,):
        got = f"{A.dtype} {tuple(A.shape)} and {B.dtype} {tuple(B.shape)} on {A.device}"
        raise ValueError(f"want real A ({d_state}, {d_state}) and B ({d_state},), got {got}")
    if not bool(A.isfinite().all() and B.isfinite().all()):
        raise ValueError("want A and B finite, got NaN or inf")
    return A.detach().to("cpu", torch.float64), B.detach().to("cpu", torch.float64)


class LSSLParameters(Clocks):
    """A, B, C and clocks of H state spaces, all learned.

    Args:
        d_model, d_state  int          H systems of N numbers
        init              str or pair  a measure, or A (N, N) and B (N,)
        n_ssm, channels   int          sets of A and B (h uses set h mod n_ssm); rows of C
        dt_min, dt_max    float        the clocks start log-uniformly between these  [time]
        device, dtype     any          of the parameters
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Gu et al. 2021 (LSSL), sec. 4; our eq-lssl-system.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | tuple[Tensor, Tensor] = "legs",
        n_ssm: int = 1,
        channels: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        clocks = {"n_ssm": n_ssm, "dt_min": dt_min, "dt_max": dt_max}
        check_clocks(d_model, **clocks, device=device, dtype=dtype)
        check_length(channels, "channels")
        (A, B), target = initial_matrices(init, d_state), target_of(device, dtype)
        start = {"A": A.repeat(n_ssm, 1, 1), "B": B.repeat(n_ssm, 1)}
        for name, value in start.items():
            if not bool(value.to(target.dtype).isfinite().all()):
                raise ValueError(f"want {name} that {target.dtype} can hold, got {value.max():g}")
        super().__init__(d_model, **clocks, device=device, dtype=dtype)
        self.d_state, self.slow = d_state, ("log_dt", "A", "B")
        start["C"] = torch.randn(channels, d_model, d_state, device="cpu")
        for name, value in start.items():
            self.register_parameter(name, nn.Parameter(value.to(target)))

    def system(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Discretize at `rate`: Ab (H, N, N), Bb (H, N), C (channels, H, N), all float64."""
        copies = self.d_model // len(self.A)
        dt = self.steps(rate)[:, None]
        A, B = self.A.double().repeat(copies, 1, 1), self.B.double().repeat(copies, 1)
        Ab, Bb = bilinear(dt[..., None] * A, (dt * B)[..., None], 1.0)
        return Ab, Bb[..., 0], self.C.double()


class LSSLKernel(LSSLParameters):
    """The views of H state spaces: kernel, response and end of a state, single steps.

    Arguments as for `LSSLParameters`. States are (batch, H, N), real, and belong to output row 0;
    signals are (batch, H, L) of `real_dtype`; `rate` > 0 multiplies every clock. There is no
    `scan`: samples that are unevenly spaced (dt) are refused.

    Cost:   2 N^2 L operations and N L numbers of memory for each of the H channels.
    Source: Gu et al. 2021 (LSSL), sec. 3; our eq-lssl-system, eq-lssl-doubling.
    """

    @property
    def real_dtype(self) -> torch.dtype:
        """The dtype of signals, states and kernels: the parameters', float32 at least."""
        return torch.promote_types(self.C.dtype, torch.float32)

    def initial_state(self, batch: int) -> Tensor:
        """Make a state that remembers nothing: (batch, H, N) zeros."""
        check_length(batch, "batch")
        size = (batch, self.d_model, self.d_state)
        return torch.zeros(size, dtype=self.real_dtype, device=self.C.device)

    def check_state(self, x: Tensor, batch: int) -> None:
        """Raise unless x is a state (batch, H, N) of these systems."""
        check_state(x, (batch, self.d_model, self.d_state), self.C, real=True)

    def forward(self, L: int, rate: float = 1.0) -> Tensor:
        """Compute the kernels (channels, H, L)."""
        Ab, Bb, C = self.system(rate)
        return (C[..., None, :] @ krylov(Ab, Bb, L))[..., 0, :].to(self.real_dtype)

    def response(self, x: Tensor, L: int, rate: float = 1.0) -> Tensor:
        """Compute what the state x (batch, H, N) still says: (batch, H, L)."""
        Ab, _, C = self.system(rate)
        rows = krylov(Ab.mT, (C[0][:, None] @ Ab)[:, 0], L)  # C Ab^(k + 1), (H, N, L)
        return torch.einsum("bhn,hnl->bhl", x.to(rows.dtype), rows).to(self.real_dtype)

    def last_state(
        self,
        u: Tensor,
        x: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | list[int] | None = None,
    ) -> Tensor:
        """Compute the state after u (batch, H, L), each row at its own end: (batch, H, N)."""
        Ab, Bb, _ = self.system(rate)
        return krylov_last_state(Ab, Bb, u, x, lengths).to(self.real_dtype)

    def step(self, u_t: Tensor, x: Tensor, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Take in u_t (batch, H) at state x: the output (batch, H) and the next state."""
        Ab, Bb, C = self.system(rate)
        y_t, x = recurrence.step(Ab, Bb, C[0], u_t, x)
        return y_t.to(self.real_dtype), x.to(self.real_dtype)


class LSSL(SSMLayer):
    """Linear state space layer: a sequence layer, (batch, L, d_model) to the same shape.

    Called, stepped and listened to (`kernel`) as `S4D` is, but for dt, which it refuses; its states
    are real, (batch, H, N).

    Args:
        d_model, d_state  int          H channels; N numbers of state for each
        init              str or pair  a measure ("legs", ...), or A (N, N) and B (N,)
        n_ssm, dt_min, dt_max, device, dtype   as for `LSSLParameters`
        bidirectional     bool         filter the future too; no states then
        activation        str or None  "gelu", "relu", "silu", or None
        mixer             str or None  "glu", "linear", or None to keep channels apart
        dropout           float        probability that a channel is dropped, at all times
    Raises:
        TypeError, ValueError: if something is not as wanted; nothing has changed then.

    Error:  A is free: training may carry it where powers grow. S4D cannot go there.
    Cost:   2 N^2 L operations and N L numbers of memory a channel, at every training step.
    Source: Gu et al. 2021 (LSSL), sec. 3 and 4; our eq-lssl-system.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | tuple[Tensor, Tensor] = "legs",
        n_ssm: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        mixer: str | None = "glu",
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        like, clocks = {"device": device, "dtype": dtype}, {"dt_min": dt_min, "dt_max": dt_max}
        check_flags(bidirectional=bidirectional)
        check_head(activation, mixer, dropout)  # everything is looked at before the first draw
        bank = {"init": init, "n_ssm": n_ssm, "channels": 1 + bidirectional, **clocks, **like}
        kernel = LSSLKernel(d_model, d_state, **bank)
        head = make_head(activation, mixer, dropout, d_model, **like)
        super().__init__(kernel, head, bidirectional=bidirectional)
