"""States of diagonal plus low rank systems by blocks: against walking, and what they refuse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s4lite.init.nplr import nplr
from s4lite.ops.dplr import dplr_step
from s4lite.ops.dplr_state import dplr_last_state, dplr_response

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
GOLDEN = Path(__file__).parent.parent / "golden"
DTS = torch.tensor([0.002, 0.05, 0.4], dtype=F64)
LENGTHS = [1, 2, 3, 15, 16, 17, 64, 99, 257]

every_measure = pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(got: Tensor, want: Tensor, tol: float) -> None:
    assert got.shape == want.shape
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


def system_of(measure: str, N: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    Lambda, P, B, _ = nplr(measure, N)
    return Lambda, P, B, draw(3, N // 2, seed=1)


def walk(system, dt, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (..., L) and all states (..., L, n), one step after the other."""
    y, states = [], []
    for u_t in u.unbind(-1):
        y_t, x = dplr_step(*system, dt, u_t, x)
        y.append(y_t)
        states.append(x)
    return torch.stack(y, -1), torch.stack(states, -2)


# ---- against walking -----------------------------------------------------------------------------


@every_measure
@pytest.mark.parametrize("L", LENGTHS)
def test_response_is_walking_without_input(measure, L):
    Lambda, P, B, C = system_of(measure)
    x = draw(2, 3, 8, seed=2)
    want, _ = walk((Lambda, P, B, C), DTS, torch.zeros(2, 3, L, dtype=F64), x)
    y = dplr_response(Lambda, P, C, DTS, x, L)
    assert y.dtype == F64
    close(y, want, 1e-11)


@every_measure
@pytest.mark.parametrize("L", LENGTHS)
def test_last_state_is_walking(measure, L):
    Lambda, P, B, C = system_of(measure)
    u, x = draw(2, 3, L, seed=3, dtype=F64), draw(2, 3, 8, seed=2)
    _, states = walk((Lambda, P, B, C), DTS, u, x)
    close(dplr_last_state(Lambda, P, B, DTS, u, x), states[..., -1, :], 1e-11)
    _, states = walk((Lambda, P, B, C), DTS, u, 0 * x)
    rested = dplr_last_state(Lambda, P, B, DTS, u)
    assert rested.dtype == C128
    close(rested, states[..., -1, :], 1e-11)


def test_rows_end_where_they_end():
    Lambda, P, B, C = system_of("legt")
    u, x, lengths = draw(5, 3, 99, seed=3, dtype=F64), draw(5, 3, 8, seed=2), [99, 1, 64, 63, 50]
    _, states = walk((Lambda, P, B, C), DTS, u, x)
    want = torch.stack([states[b, :, n - 1] for b, n in enumerate(lengths)])
    for given in (lengths, torch.tensor(lengths), np.array(lengths)):
        close(dplr_last_state(Lambda, P, B, DTS, u, x, given), want, 1e-11)
    _, states = walk((Lambda, P, B, C), DTS, u, 0 * x)
    want = torch.stack([states[b, :, n - 1] for b, n in enumerate(lengths)])
    close(dplr_last_state(Lambda, P, B, DTS, u, lengths=lengths), want, 1e-11)


def test_handing_over_in_pieces_is_the_whole():
    Lambda, P, B, _ = system_of("lagt")
    u, x = draw(2, 3, 300, seed=3, dtype=F64), draw(2, 3, 8, seed=2)
    whole = dplr_last_state(Lambda, P, B, DTS, u, x)
    for piece in u.split([1, 7, 64, 200, 28], -1):
        x = dplr_last_state(Lambda, P, B, DTS, piece, x)
    close(x, whole, 1e-11)


@pytest.mark.parametrize("measure", ["legs", "legt", "fout"])
def test_golden_states(measure):
    z, L = np.load(GOLDEN / f"s4_{measure}_bilinear_L64.npz"), 64
    A, B, P, C, dt, u, x0 = (
        torch.from_numpy(z[k]) for k in ("A", "B", "P", "C", "dt", "u", "state0")
    )
    P, B, C, dt = P.movedim(0, -1), B[0], C[0], dt[:, 0]
    close(dplr_last_state(A, P, B, dt, u), torch.from_numpy(z["final_state_zero"]), 1e-11)
    close(dplr_last_state(A, P, B, dt, u, x0), torch.from_numpy(z["final_state_ref"]), 1e-11)
    rest = torch.from_numpy(z["y_state0_ref"] - z["y"])  # what the old state alone says
    close(dplr_response(A, P, C, dt, x0, L), rest, 1e-10)


@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_float32(measure):
    """Tables and powers are float64: only the last product is rounded, at every length."""
    Lambda, P, B, C = (x.to(C64) for x in system_of(measure, 64))
    dt = torch.tensor([1e-4, 1e-3, 1e-1])
    for L in (99, 1024, 16384):
        u, x = draw(2, 3, L, seed=3, dtype=F32), draw(2, 3, 32, seed=2, dtype=C64)
        last, y = dplr_last_state(Lambda, P, B, dt, u, x), dplr_response(Lambda, P, C, dt, x, L)
        assert last.dtype == C64 and y.dtype == F32
        wide = [v.to(C128) for v in (Lambda, P, B, C)]
        close(last, dplr_last_state(*wide[:3], dt, u.double(), x.to(C128)).to(C64), 2e-6)
        close(y, dplr_response(*wide[:2], wide[3], dt, x.to(C128), L).float(), 5e-6)


# ---- axes ----------------------------------------------------------------------------------------


def test_leading_axes_broadcast():
    Lambda, P, B, C = system_of("legt")
    x, u = draw(2, 5, 3, 8, seed=2), draw(2, 5, 3, 20, seed=3, dtype=F64)
    y, last = dplr_response(Lambda, P, C, DTS, x, 20), dplr_last_state(Lambda, P, B, DTS, u, x)
    assert y.shape == (2, 5, 3, 20) and last.shape == (2, 5, 3, 8)
    for i in range(3):  # each system by itself, without axes of its own
        one = dplr_response(Lambda, P, C[i], DTS[i], x[:, :, i], 20)
        close(one, y[:, :, i], 1e-12)
        one = dplr_last_state(Lambda, P, B, DTS[i], u[:, :, i], x[:, :, i])
        close(one, last[:, :, i], 1e-12)
    # many systems, one signal; one state for all; sets of parameters with axes of their own
    many = dplr_last_state(Lambda, P, B, DTS, u[0, 0, 0], x[0, 0, 0])
    close(many[1], dplr_last_state(Lambda, P, B, DTS[1], u[0, 0, 0], x[0, 0, 0]), 1e-12)
    wide = dplr_response(Lambda.expand(2, 1, 8), P, C, DTS, x[0, 0, 0], 9)
    assert wide.shape == (2, 3, 9)
    close(wide[1], dplr_response(Lambda, P, C, DTS, x[0, 0, 0], 9), 1e-12)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_any_rank_and_mirrored_halves(r):
    Lambda = torch.complex(-draw(7, dtype=F64).exp(), 20 * draw(7, seed=1, dtype=F64))
    P, B, C, x = draw(7, r, seed=2), draw(7, seed=3), draw(7, seed=4), draw(7, seed=5)
    u = draw(40, seed=6, dtype=F64)
    _, states = walk((Lambda, P, B, C), 0.1, u, x)
    close(dplr_last_state(Lambda, P, B, 0.1, u, x), states[-1], 1e-11)
    mirrored = [v.conj() for v in (Lambda, P, B, C, x)]
    silent = dplr_response(Lambda, P, C, 0.1, x, 40)
    close(dplr_response(*mirrored[:2], mirrored[3], 0.1, mirrored[4], 40), silent, 1e-11)


# ---- gradients, memory, graphs -------------------------------------------------------------------


def test_gradcheck():
    Lambda, P, B, C = (v.requires_grad_() for v in system_of("legt", 4))
    with torch.no_grad():
        Lambda -= 0.3
    x, u = draw(2, 3, 2, seed=2).requires_grad_(), draw(2, 3, 9, seed=3, dtype=F64).requires_grad_()
    dt = DTS.clone().requires_grad_()
    assert gradcheck(lambda *a: dplr_response(*a, 9), (Lambda, P, C, dt, x))
    for lengths in (None, [9, 4]):
        assert gradcheck(
            lambda *a, n=lengths: dplr_last_state(*a, lengths=n), (Lambda, P, B, dt, u, x)
        )
    assert gradgradcheck(dplr_last_state, (Lambda, P, B, dt, u, x), fast_mode=True)


def test_nothing_is_heard_beyond_an_end():
    Lambda, P, B, _ = system_of("legs")
    u = draw(2, 3, 30, seed=3, dtype=F64).requires_grad_()
    last = dplr_last_state(Lambda, P, B, DTS, u, draw(2, 3, 8, seed=2), [30, 11])
    grad = torch.autograd.grad(last.abs().sum(), u)[0]
    assert (grad[1, :, 11:] == 0).all() and (grad[1, :, :11] != 0).all() and (grad[0] != 0).all()


class Largest(TorchDispatchMode):
    """Remember the number of bytes of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [x.numel() * x.element_size() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.bytes = max([self.bytes, *made])
        return out


def test_no_table_of_powers_is_kept():
    Lambda, P, B, C = system_of("legs", 64)
    u, L = draw(2, 3, 16384, seed=3, dtype=F32).requires_grad_(), 16384
    x = draw(2, 3, 32, seed=2, dtype=C64).requires_grad_()
    with Largest() as seen:
        dplr_last_state(Lambda, P, B, DTS, u, x).abs().sum().backward()
        dplr_response(Lambda, P, C, DTS, x, L).sum().backward()
    assert seen.bytes < 5 * u.numel() * u.element_size() < 3 * 64 * L * 4


def test_compiles_to_one_graph():
    Lambda, P, B, C = system_of("legs")
    u, x = draw(2, 3, 40, seed=3, dtype=F64), draw(2, 3, 8, seed=2)
    options = {"fullgraph": True, "backend": "aot_eager"}
    got = torch.compile(dplr_response, **options)(Lambda, P, C, DTS, x, 40)
    close(got, dplr_response(Lambda, P, C, DTS, x, 40), 1e-12)
    got = torch.compile(dplr_last_state, **options)(Lambda, P, B, DTS, u, x)
    close(got, dplr_last_state(Lambda, P, B, DTS, u, x), 1e-12)


def test_vmap_meta_and_autocast():
    Lambda, P, B, C = system_of("legs")
    u, x = draw(4, 3, 40, seed=3, dtype=F64), draw(4, 3, 8, seed=2)
    each = torch.vmap(lambda u, x: dplr_last_state(Lambda, P, B, DTS, u, x))(u, x)
    close(each, dplr_last_state(Lambda, P, B, DTS, u, x), 1e-12)
    meta = [v.to("meta") for v in (Lambda, P, B, DTS, u, x)]
    assert dplr_last_state(*meta).shape == (4, 3, 8)
    assert dplr_response(meta[0], meta[1], meta[2], meta[3], meta[5], 7).shape == (4, 3, 7)
    last, y = dplr_last_state(Lambda, P, B, DTS, u, x), dplr_response(Lambda, P, C, DTS, x, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dplr_last_state(Lambda, P, B, DTS, u, x), last)
        assert torch.equal(dplr_response(Lambda, P, C, DTS, x, 9), y)


# ---- bad input -----------------------------------------------------------------------------------

LAMBDA, P1, B1, C1 = system_of("legs")
X, U = draw(2, 3, 8, seed=2), draw(2, 3, 20, seed=3, dtype=F64)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"Lambda": LAMBDA.real}, TypeError, "want Lambda complex"),
        ({"Lambda": LAMBDA + 1}, ValueError, "want finite poles with Re Lambda <= 0"),
        ({"Lambda": LAMBDA * math.nan}, ValueError, "want finite poles"),
        ({"Lambda": LAMBDA[:5]}, ValueError, "of one width n >= 1"),
        ({"P": P1[:, 0]}, ValueError, r"want P \(..., n, r\)|of one width"),
        ({"P": None}, TypeError, "want P as a torch.Tensor"),
        ({"w": B1[:5]}, ValueError, "of one width n >= 1"),
        ({"dt": 0.0}, ValueError, "want dt finite and > 0"),
        ({"dt": DTS * 1j}, TypeError, "want dt real"),
        ({"dt": DTS[:2]}, ValueError, "leading axes that broadcast"),
        ({"x": X.real}, TypeError, "want x complex"),
        ({"x": X[..., :5]}, ValueError, "of one width n >= 1"),
        ({"x": X[:, :2]}, ValueError, "leading axes that broadcast"),
        ({"x": X.to("meta")}, ValueError, "want all tensors on one device"),
    ],
)
def test_refused_by_both(change, error, said):
    given = {"Lambda": LAMBDA, "P": P1, "w": B1, "dt": DTS, "x": X} | change
    Lambda, P, w, dt, x = given.values()
    with pytest.raises(error, match=said):
        dplr_response(Lambda, P, w, dt, x, 9)
    with pytest.raises(error, match=said):
        dplr_last_state(Lambda, P, w, dt, U, x)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"u": U.to(C128)}, TypeError, "real"),
        ({"u": U[..., :0]}, ValueError, "want the length of u >= 1"),
        ({"u": U[0, 0, 0]}, ValueError, "want the length of u >= 1"),
        ({"u": [1.0]}, TypeError, "want u as a torch.Tensor"),
        ({"u": None}, TypeError, "want u as a torch.Tensor"),
        ({"u": U.long()}, TypeError, "want u of a floating"),
        ({"u": U[:, :2]}, ValueError, "leading axes that broadcast"),
        ({"lengths": [3, 21]}, ValueError, "want lengths from 1 to L = 20"),
        ({"lengths": [3]}, ValueError, r"want lengths \(2,\)"),
        ({"lengths": [0.5, 1.0]}, TypeError, "want lengths as whole numbers"),
        ({"u": U[0], "x": None, "lengths": [3, 4, 5]}, ValueError, r"want u \(batch, H, L\)"),
    ],
)
def test_refused_by_last_state(change, error, said):
    given = {"u": U, "x": X, "lengths": None} | change
    with pytest.raises(error, match=said):
        dplr_last_state(LAMBDA, P1, B1, DTS, **given)


@pytest.mark.parametrize(
    ("L", "error", "said"),
    [(0, ValueError, "want L >= 1"), (2.0, TypeError, "want L as an int")],
)
def test_refused_by_response(L, error, said):
    with pytest.raises(error, match=said):
        dplr_response(LAMBDA, P1, C1, DTS, X, L)
    with pytest.raises(TypeError, match=r"want x as a torch\.Tensor"):
        dplr_response(LAMBDA, P1, C1, DTS, None, 9)
