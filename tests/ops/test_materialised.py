"""The materialised kernels: against dense powers, and as the judges that they are."""

import functools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.init.nplr import nplr
from s4lite.ops.dplr import dplr_kernel, dplr_kernel_naive
from s4lite.ops.materialised import diag_kernel_table, dplr_kernel_table
from s4lite.ops.vandermonde import diag_kernel, diag_kernel_naive

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
DTS = torch.tensor([0.001, 0.01, 0.1], dtype=F64)
every_disc = pytest.mark.parametrize("disc", ["zoh", "bilinear"])
every_measure = pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
every_length = pytest.mark.parametrize("L", [1, 2, 99, 1023])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def single(*tensors: Tensor) -> list[Tensor]:
    return [x.to(C64) if x.is_complex() else x.float() for x in tensors]


def close(got: Tensor, want: Tensor, tol: float) -> None:
    """Equal up to tol times the largest entry of each row."""
    assert got.shape == want.shape
    gap = ((got - want).abs().amax(-1) / want.abs().amax(-1)).max()
    assert gap < tol, f"off by {gap:.1e}"


@every_disc
@every_length
def test_diagonal_is_dense_powers(disc, L):
    Lambda, B, C = s4d_lin(8), draw(4, seed=1), draw(3, 4, seed=2)
    K = diag_kernel_table(Lambda, B, C, DTS, L, disc)
    assert K.dtype == F64
    close(K, diag_kernel_naive(Lambda, B, C, DTS, L, disc), 1e-11)


@every_measure
@every_length
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_low_rank_is_dense_powers(measure, L, rank):
    Lambda, P, B, _ = nplr(measure, 8)
    P = P if rank is None else draw(4, rank, seed=3)
    C = draw(3, 4, seed=4)
    K = dplr_kernel_table(Lambda, P, B, C, DTS, L)
    assert K.dtype == F64
    close(K, dplr_kernel_naive(Lambda, P, B, C, DTS, L), 1e-11)


@every_disc
def test_own_precision_costs_digits_and_the_fast_form_keeps_them(disc):
    """Float32 angles: the table is off by more than the fast kernel, which has them in float64."""
    args = s4d_inv(64), torch.ones(32, dtype=F64), draw(3, 32, seed=5), DTS
    low = single(*args)
    truth = diag_kernel(*(x.to(torch.promote_types(x.dtype, F64)) for x in low), 4096, disc)
    table, fast = (f(*low, 4096, disc) for f in (diag_kernel_table, diag_kernel))
    assert table.dtype == fast.dtype == F32
    close(table.double(), truth, 1e-3)
    assert (fast - truth).abs().max() < 0.5 * (table - truth).abs().max()


@every_measure
def test_float32_sums(measure):
    low = single(*nplr(measure, 64)[:3], draw(3, 32, seed=6), DTS)
    truth = dplr_kernel(*(x.to(torch.promote_types(x.dtype, F64)) for x in low), 1023)
    K = dplr_kernel_table(*low, 1023)
    assert K.dtype == F32
    close(K.double(), truth, 2e-5)


@every_disc
def test_gradients_of_the_diagonal_table(disc):
    args = leaves(draw(3, seed=7) - 3, draw(3, seed=8), draw(2, 3, seed=9), DTS[:2])
    assert gradcheck(functools.partial(diag_kernel_table, L=7, disc=disc), args)


def test_gradients_of_the_quotients():
    Lambda, P, B, _ = nplr("legt", 4)
    args = leaves(Lambda - 0.1, P, B, draw(2, 2, seed=10), DTS[1:] * 3)
    assert gradcheck(functools.partial(dplr_kernel_table, L=9), args)


def test_a_pole_at_zero_and_a_step_that_forgets_at_once():
    Lambda = torch.tensor([0j, -20 + 0j], dtype=C128)  # dt Lambda = -2: Ab = 0 by the bilinear rule
    B, C = torch.ones(2, dtype=F64), torch.ones(2, dtype=F64)
    for disc in ("zoh", "bilinear"):
        args = leaves(Lambda, B, C)
        K = diag_kernel_table(*args, 0.1, 6, disc)
        close(K.detach(), diag_kernel_naive(Lambda, B, C, 0.1, 6, disc), 1e-14)
        assert all(x.isfinite().all() for x in torch.autograd.grad(K.sum(), args))


def test_leading_axes_broadcast():
    Lambda, B, C = s4d_lin(8).expand(2, 1, 4), draw(4, seed=11), draw(3, 4, seed=12)
    assert diag_kernel_table(Lambda, B, C, 0.1, 5).shape == (2, 3, 5)
    P = draw(2, 1, 4, 2, seed=13)
    K = dplr_kernel_table(Lambda, P, B, C, DTS, 5)
    close(K, dplr_kernel(Lambda, P, B, C, DTS, 5), 1e-12)


ONE = torch.ones(2, dtype=F64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Lambda": ONE}, TypeError, "want Lambda complex"),
        ({"B": ONE[:1]}, ValueError, "of one width n >= 1"),
        ({"dt": 0.0}, ValueError, "want dt finite and > 0, got 0"),
        ({"L": 0}, ValueError, "want L >= 1, got 0"),
        ({"L": 3.0}, TypeError, "want L as an int, got float"),
        ({"disc": "euler"}, ValueError, 'want disc "zoh" or "bilinear"'),
        ({"P": ONE}, ValueError, r"want P \(\.\.\., n, r\)"),
    ],
)
def test_bad_input(change, error, message):
    good = {"Lambda": -ONE.to(C128), "B": ONE, "C": ONE, "dt": 0.1, "L": 4}
    rows = [(diag_kernel_table, good, "P"), (dplr_kernel_table, good | {"P": ONE[:, None]}, "disc")]
    for function, known, other in rows:
        if other not in change:
            function(**known)
            with pytest.raises(error, match=message):
                function(**known | change)
