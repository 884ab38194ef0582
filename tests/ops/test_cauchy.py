"""Sums of fractions: against the sum as written, the dense resolvent, and what they promise."""

import functools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.nplr import nplr
from s4lite.ops import cauchy as ops
from s4lite.ops import recomputed
from s4lite.ops.cauchy import cauchy, cauchy_naive, dplr_spectrum
from s4lite.ops.dplr import real_form
from s4lite.ops.genfunc import c_tilde, genfunc, half_angles

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
MEASURES = ("legs", "legt", "lagt", "fout")
every_measure = pytest.mark.parametrize("measure", MEASURES)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_poles(n: int, seed: int = 0) -> Tensor:
    """Stable poles times a step: slow and fast, some on the axis, one at zero."""
    re, im = draw(2, n, seed=seed, dtype=F64)
    re = torch.where(torch.arange(n) % 3 == 0, 0.0, -torch.exp(2 * re - 4))
    return torch.complex(re, torch.where(torch.arange(n) == 0, 0.0, 2 * im))


def close(got: Tensor, want: Tensor, tol: float) -> None:
    """Equal up to tol times the largest entry of each row."""
    assert got.shape == want.shape
    gap = ((got - want).abs().amax(-1) / want.abs().amax(-1)).max()
    assert gap < tol, f"off by {gap:.1e}"


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(ops, "_TILE", 64)
    monkeypatch.setattr(recomputed, "_TILE", {"cpu": 1024})


# ---- definition, naive twin ----------------------------------------------------------------------


def test_naive_is_the_sum_as_written():
    v, l, w = draw(3, 5, seed=1), some_poles(5), half_angles(11, 0.7)
    rho = cauchy_naive(v, l, w)
    for j in range(3):
        for k in range(6):
            s, c = torch.sinh(w[k]), torch.cosh(w[k])
            terms = [
                v[j, n] / (2 * s - c * l[n]) + v[j, n].conj() / (2 * s - c * l[n].conj())
                for n in range(5)
            ]
            assert abs(rho[j, k] - sum(terms)) < 1e-12 * abs(rho[j]).max()


@pytest.mark.parametrize("J", [1, 4, 9])
@pytest.mark.parametrize(("L", "tau"), [(1, 0.5), (2, 0.5), (3, 18.0), (99, 0.5), (1023, 2.0)])
def test_folded_is_naive(J, L, tau):
    v, l, w = draw(2, J, 7, seed=2), some_poles(7, seed=3), half_angles(L, tau)
    close(cauchy(v, l, w), cauchy_naive(v, l, w), 1e-12)


@every_measure
def test_true_poles_of_every_measure(measure):
    steps = torch.tensor([1e-4, 1e-2, 1.0], dtype=F64)
    v, l, w = (
        draw(3, 4, 32, seed=4),
        steps[:, None] * nplr(measure, 64).Lambda,
        half_angles(2000, 0.5),
    )
    close(cauchy(v, l, w), cauchy_naive(v, l, w), 1e-11)


def test_undamped_circle_where_no_pole_is_on_it():
    l = nplr("legs", 16).Lambda * 0.1
    v = draw(4, 8, seed=5)
    for L in (2, 64, 99):  # even lengths have the node z = -1, where c = 0
        close(cauchy(v, l, half_angles(L)), cauchy_naive(v, l, half_angles(L)), 1e-12)


def test_the_old_singular_node_is_ordinary():
    v, l = draw(2, 6, seed=6), some_poles(6, seed=7)
    w = torch.tensor([0.5j * torch.pi], dtype=C128)  # z = -1: s = i, c = 0, every fraction v / 2i
    close(cauchy(v, l, w)[:, 0], v.real.sum(-1) / 1j, 1e-14)


@every_measure
def test_float32_loses_what_its_resonances_cost(measure):
    """Each fraction may amplify a rounding by (|2s| + |c l|) / |2s - c l|, and no more."""
    for dt in (1e-3, 1e-2, 1e-1):
        for L in (64, 1023, 4096):
            v, w = draw(4, 32, seed=8).to(C64), half_angles(L, 0.5)
            l = (dt * nplr(measure, 64).Lambda).to(C64)
            truth = cauchy_naive(v.to(C128), l.to(C128), w)
            two_s, c, bound = 2 * torch.sinh(w), torch.cosh(w), 0.0
            for pole in (l.to(C128), l.to(C128).conj()):
                size = (two_s - c * pole[:, None]).abs()
                cost = 1 + (two_s.abs() + c.abs() * pole.abs()[:, None]) / size
                bound = bound + v.abs().double() @ (cost / size)
            rho = cauchy(v, l, w)
            assert rho.dtype == C64
            assert ((rho - truth).abs() < 4 * 2.0**-24 * bound).all()


def test_mirrored_halves_give_the_same_sums():
    v, l, w = draw(3, 6, seed=9), some_poles(6, seed=10), half_angles(50, 0.5)
    close(cauchy(v.conj(), l.conj(), w), cauchy(v, l, w), 1e-14)


def test_leading_axes_broadcast_and_real_numerators_are_numbers_too():
    v, l, w = draw(3, 1, 4, 5, seed=11), draw(2, 5, seed=12) - 3, half_angles(20, 0.5)
    rho = cauchy(v, l, w)
    assert rho.shape == (3, 2, 4, 11)
    close(rho[1, 1], cauchy(v[1, 0], l[1], w), 1e-14)
    close(cauchy(v.real, l, w), cauchy(v.real + 0j, l, w), 1e-15)


# ---- tiles ---------------------------------------------------------------------------------------


def test_tiles_change_nothing(monkeypatch):
    args = draw(2, 4, 6, seed=13), some_poles(6, seed=14)
    w, gamma = half_angles(201, 0.5), draw(2, 4, 101, seed=15)
    found = []
    for tile in (2**18, 100, 1):
        monkeypatch.setattr(ops, "_TILE", tile)
        monkeypatch.setattr(recomputed, "_TILE", {"cpu": 16 * tile})
        leaves = [x.clone().requires_grad_() for x in args]
        rho = cauchy(*leaves, w)
        found.append([rho, *torch.autograd.grad((gamma.conj() * rho).real.sum(), leaves)])
        close(cauchy(*args, w), rho.detach(), 1e-14)  # without a gradient to come
    for other in found[1:]:
        for x, y in zip(other, found[0], strict=True):
            close(x.detach(), y.detach(), 1e-12)


def test_no_table_is_kept_for_the_backward_pass(small_tiles):
    kept = {}  # every piece of memory once
    keep = lambda x: kept.setdefault(x.data_ptr(), x).numel() and x  # noqa: E731
    v, l = draw(4, 32, seed=16).requires_grad_(), some_poles(32).requires_grad_()
    w = half_angles(3000, 0.5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        naive = cauchy_naive(v, l, w)
        table = max(x.numel() for x in kept.values())
        kept.clear()
        rho = cauchy(v, l, w)
    assert naive.shape == rho.shape and table >= 32 * 1501
    assert sum(x.numel() for x in kept.values()) <= 4 * 1501


# ---- gradients -----------------------------------------------------------------------------------


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


@pytest.mark.parametrize("tiled", [False, True])
def test_gradcheck(tiled, request):
    if tiled:
        request.getfixturevalue("small_tiles")
    w = half_angles(40, 0.5)
    args = leaves(draw(2, 4, seed=17), some_poles(4, seed=18))
    assert gradcheck(lambda v, l: cauchy(v, l, w), args)
    assert gradgradcheck(lambda v, l: cauchy(v, l, w), args, atol=1e-4)


@every_measure
def test_gradient_is_that_of_the_twin(measure):
    w, gamma = half_angles(999, 0.5), draw(3, 4, 500, seed=19)
    args = draw(3, 4, 32, seed=20), torch.logspace(-3, -1, 3)[:, None] * nplr(measure, 64).Lambda
    grads = []
    for function in (cauchy, cauchy_naive):
        v, l = leaves(*args)
        grads.append(torch.autograd.grad((gamma.conj() * function(v, l, w)).real.sum(), (v, l)))
    for ours, theirs in zip(*grads, strict=True):
        close(ours, theirs, 1e-10)


# ---- the spectrum --------------------------------------------------------------------------------


def system(measure: str, N: int, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    Lambda, P, B, _ = nplr(measure, N)
    P = P if rank is None else 2 * draw(N // 2, rank, seed=21)
    return Lambda, P, B, draw(N // 2, seed=22)


@every_measure
@pytest.mark.parametrize("rank", [None, 1, 3])
@pytest.mark.parametrize("L", [1, 2, 33, 64])
def test_spectrum_is_the_dense_resolvent(measure, rank, L):
    Lambda, P, B, C = system(measure, 8, rank)
    A, Br, Cr = real_form(Lambda, P, B, C)
    dt = torch.tensor([0.02, 0.5], dtype=F64)
    Ab = 2 * torch.linalg.inv(torch.eye(8) - dt[:, None, None] / 2 * A) - torch.eye(8)
    re, im = c_tilde(Cr, Ab, L, 0.5).chunk(2, -1)
    Ct = torch.complex(re, -im) / 2**0.5
    K_hat = dplr_spectrum(Lambda, P, B, Ct, dt, half_angles(L, 0.5), C128)
    close(K_hat, genfunc(A, Br, Cr, dt, L, 0.5), 1e-11)
    close(dplr_spectrum(Lambda, P, B, Ct, dt, half_angles(L, 0.5), C64).to(C128), K_hat, 2e-4)


def test_wires_in_any_order_and_turned():
    Lambda, P, B, C = system("legs", 8, 3)
    dt, w = torch.tensor(0.1, dtype=F64), half_angles(31, 0.5)
    K_hat = dplr_spectrum(Lambda, P, B, C, dt, w, C128)
    close(dplr_spectrum(Lambda, P.flip(-1), B, C, dt, w, C128), K_hat, 1e-12)
    turn = torch.linalg.qr(draw(3, 3, seed=23, dtype=F64))[0].to(C128)  # P P* stays as it is
    close(dplr_spectrum(Lambda, P @ turn, B, C, dt, w, C128), K_hat, 1e-12)


# ---- compiled, mapped, lowered -------------------------------------------------------------------


@pytest.mark.parametrize("tiled", [False, True])
def test_compiles_to_one_graph(tiled, request):
    if tiled:
        request.getfixturevalue("small_tiles")
    torch.compiler.reset()
    w, args = half_angles(60, 0.5), leaves(draw(4, 6, seed=24), some_poles(6, seed=25))
    compiled = torch.compile(cauchy, fullgraph=True, backend="aot_eager")
    got, want = compiled(*args, w), cauchy(*args, w)
    close(got.detach(), want.detach(), 1e-13)
    pair = (torch.autograd.grad(x.abs().square().sum(), args) for x in (got, want))
    for ours, eager in zip(*pair, strict=True):
        close(ours, eager, 1e-11)


def test_vmap_and_func_grad(small_tiles):
    v, l, w = draw(3, 4, 6, seed=26), some_poles(6, seed=27), half_angles(60, 0.5)
    close(torch.vmap(lambda v: cauchy(v, l, w))(v), cauchy(v, l, w), 1e-13)
    loss = lambda l: cauchy(v, l, w).abs().square().sum()  # noqa: E731
    (want,) = torch.autograd.grad(loss(leaf := l.clone().requires_grad_()), leaf)
    close(torch.func.grad(loss)(l), want, 1e-12)


def test_autocast_does_not_touch_the_sums():
    v, l, w = draw(4, 6, seed=28).to(C64), some_poles(6).to(C64), half_angles(60, 0.5)
    plain = cauchy(v, l, w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cauchy(v, l, w), plain)


def test_meta_tensors_give_a_shape():
    v, l, w = (x.to("meta") for x in (draw(2, 4, 6), some_poles(6), half_angles(60, 0.5)))
    assert cauchy(v, l, w).shape == (2, 4, 31)


# ---- bad input -----------------------------------------------------------------------------------

V, POLES, W = draw(4, 3), -torch.ones(3, dtype=C128), half_angles(8, 0.5)
BAD = {  # v, l, w, error, message
    "one axis": (V[0], POLES, W, ValueError, r"want v \(\.\.\., J, n\).*got \(3,\)"),
    "no sums": (V[:0], POLES, W, ValueError, r"J, n >= 1, got \(0, 3\)"),
    "no poles": (V[:, :0], POLES[:0], W, ValueError, r"J, n >= 1, got \(4, 0\)"),
    "widths": (V, POLES[:2], W, ValueError, r"of one width n >= 1.*l \(2,\)"),
    "axes": (
        V.expand(5, 4, 3),
        POLES.expand(2, 3),
        W,
        ValueError,
        r"axes that broadcast.*l \(2, 3\)",
    ),
    "nodes": (V, POLES, W[None], ValueError, r"want w \(K,\), .*got \(1, 5\)"),
    "no nodes": (V, POLES, W[:0], ValueError, r"want w \(K,\), .*got \(0,\)"),
    "real poles": (V, POLES.real, W, TypeError, r"want l and w complex, got torch\.float64"),
    "real nodes": (V, POLES, W.imag, TypeError, r"complex, got .* and torch\.float64"),
    "a list": ([1.0], POLES, W, TypeError, "want v as a torch.Tensor, got list"),
    "integers": (V.real.long(), POLES, W, TypeError, "want v of a floating.*int64"),
    "devices": (V, POLES, W.to("meta"), ValueError, "one device.*w on meta"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("function", [cauchy, cauchy_naive])
def test_bad_input(function, case):
    *args, error, message = BAD[case]
    with pytest.raises(error, match=message):
        function(*args)
    function(V, POLES, W)


def test_bad_input_to_the_spectrum():
    good = functools.partial(dplr_spectrum, B=POLES, Ct=POLES, dt=torch.ones(()), w=W, dtype=C128)
    assert good(POLES, POLES[:, None]).shape == (5,)
    with pytest.raises(TypeError, match="want l and w complex"):
        good(POLES, POLES[:, None], w=W.imag)


@pytest.mark.parametrize("r", [1, 2])
def test_of_all_sums_at_a_node_one_number_is_kept(small_tiles, r):
    """Backward, `dplr_spectrum` keeps its arguments and the nodes, whatever the rank."""
    kept = {}
    keep = lambda x: kept.setdefault(x.data_ptr(), x).numel() and x  # noqa: E731
    dt, w, n, systems = torch.full((4,), 0.01, dtype=torch.float64), half_angles(3000, 0.5), 32, 4
    B, Ct = (draw(systems, n, seed=k).requires_grad_() for k in (21, 22))
    P = draw(systems, n, r, seed=23).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        K_hat = dplr_spectrum(some_poles(n), P, B, Ct, dt, w, torch.complex128)
    assert K_hat.shape == (4, 1501)
    kept = sum(x.numel() for x in kept.values())
    assert kept < 2 * 1501 + 8 * systems * (r + 1) ** 2 * n < systems * (r + 1) ** 2 * 1501
