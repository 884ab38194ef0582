"""Diagonal plus low rank systems: kernels and steps against dense powers and golden vectors."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.hippo import hippo
from s4lite.init.nplr import nplr
from s4lite.ops import dplr as ops
from s4lite.ops.cauchy import dplr_spectrum
from s4lite.ops.conv import causal_conv, kernel_naive
from s4lite.ops.discretize import bilinear
from s4lite.ops.dplr import (
    dplr_discretize,
    dplr_kernel,
    dplr_kernel_naive,
    dplr_step,
    real_form,
)
from s4lite.ops.genfunc import from_spectrum, half_angles
from s4lite.ops.recurrence import recur

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
GOLDEN = Path(__file__).parent.parent / "golden"
DTS = torch.tensor([0.001, 0.01, 0.1], dtype=F64)

every_measure = pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
every_route = pytest.mark.parametrize("route", ["cauchy", "dense", "circle", "auto"])
exact_route = pytest.mark.parametrize("route", ["cauchy", "dense", "auto"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def close(got: Tensor, want: Tensor, tol: float) -> None:
    """Equal up to tol times the largest entry of each row."""
    assert got.shape == want.shape
    gap = ((got - want).abs().amax(-1) / want.abs().amax(-1)).max()
    assert gap < tol, f"off by {gap:.1e}"


def trained(n: int, r: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A system as training may leave it: slow and fast poles, a pole at zero, any P."""
    re, im = draw(2, n, seed=seed, dtype=F64)
    Lambda = torch.complex(-torch.exp(3 * re - 3), 20 * im)
    Lambda[0] = 0
    return Lambda, *(draw(*s, seed=seed + k) for k, s in enumerate([(n, r), (n,), (n,)], 1))


def single(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.to(C64) if x.is_complex() else x.float() for x in tensors)


def double(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.to(C128) if x.is_complex() else x.double() for x in tensors)


# ---- the kernel: definition, naive twin ----------------------------------------------------------


@functools.cache
def dense_truth(measure: str) -> tuple[tuple[Tensor, ...], Tensor]:
    """4096 lags from dense powers of the HiPPO matrix itself: no poles, no P, no complex number."""
    A, B = hippo(measure, 64)
    Lambda, P, Bd, V = nplr(measure, 64)
    C = draw(3, 64, seed=1, dtype=F64)
    Ab, Bb = bilinear(A, B[:, None], DTS)
    return (Lambda, P, Bd, C.to(C128) @ V), kernel_naive(Ab, Bb[..., 0], C, 4096)


@every_measure
@exact_route
@pytest.mark.parametrize("L", [1, 2, 64, 99, 1023, 4096])
def test_kernel_is_dense_powers_of_the_hippo_matrix(measure, route, L):
    system, truth = dense_truth(measure)
    K = dplr_kernel(*system, DTS, L, route=route)
    assert K.dtype == F64
    close(K, truth[:, :L], 1e-11)


@every_measure
def test_naive_twin_and_real_form(measure):
    system, truth = dense_truth(measure)
    close(dplr_kernel_naive(*system, DTS, 512), truth[:, :512], 1e-11)
    A, B, C = real_form(*system)
    assert A.dtype == B.dtype == C.dtype == F64
    Ab, Bb = bilinear(A, B[:, None], DTS)
    close(kernel_naive(Ab, Bb[..., 0], C, 512), truth[:, :512], 1e-11)


@every_measure
def test_poles_on_the_axis_are_on_the_axis(measure):
    """LegT, LagT and FouT have Re Lambda = 0 exactly: the cases that no undamped form survives."""
    assert (nplr(measure, 64).Lambda.real == (-0.5 if measure == "legs" else 0)).all()


@exact_route
@pytest.mark.parametrize("L", [1, 2, 3, 4, 5, 15, 16, 17, 99, 127, 129, 1000, 1025])
def test_any_length_any_rank(route, L):
    for r in (1, 2, 3):
        *system, C = trained(7, r, seed=r)
        dt = torch.tensor([0.3, 0.02], dtype=F64)
        truth = dplr_kernel_naive(*system, C, dt, L)
        close(dplr_kernel(*system, C, dt, L, route=route), truth, 1e-11)


@every_measure
@every_route
def test_float32_at_every_length(measure, route):
    *system, C = single(*dense_truth(measure)[0])
    dt = torch.tensor([1e-4, 1e-3, 1e-1])
    truth = dplr_kernel(*double(*system, C, dt), 65536, route="dense")
    close(truth[:, :300], dplr_kernel_naive(*double(*system, C, dt), 300), 1e-11)
    for L in (1, 2, 64, 99, 257, 1023, 1024, 4096, 16384, 65536):
        if route == "circle" and L > 16384:
            continue
        K = dplr_kernel(*system, C, dt, L, route=route)
        assert K.dtype == F32
        close(K.double(), truth[:, :L], 1e-6 if route == "circle" else 5e-6)


@exact_route
def test_a_shorter_kernel_is_the_start_of_a_longer_one(route):
    args = *trained(9, 2, seed=3), 0.05
    whole = dplr_kernel(*args, 1500, route=route)
    for L in (1, 37, 1024, 1025):
        close(dplr_kernel(*args, L, route=route), whole[:L], 1e-11)


@exact_route
def test_halves_may_be_mirrored_and_modes_reordered(route):
    system, order = trained(6, 2, seed=4), torch.tensor([3, 0, 5, 1, 2, 4])
    K = dplr_kernel(*system, 0.1, 200, route=route)
    close(dplr_kernel(*(x.conj() for x in system), 0.1, 200, route=route), K, 1e-12)
    close(dplr_kernel(*(x[order] for x in system), 0.1, 200, route=route), K, 1e-12)


@every_route
def test_leading_axes_broadcast(route):
    """Channels, copies and steps stand anywhere: each kernel is that of its own system."""
    Lambda, P, B, C = single(*trained(5, 2, seed=5))
    shapes = {"C": (3, 1, 5), "P": (4, 5, 2), "Lambda": (4, 5), "B": (1, 5), "dt": (4,), "none": ()}
    for name, shape in shapes.items():
        args = {"Lambda": Lambda, "P": P, "B": B, "C": C, "dt": torch.tensor(0.1)}
        if name != "none":
            size = torch.linspace(0.5, 1.5, torch.Size(shape).numel()).reshape(shape)
            args[name] = args[name] * size
        K = dplr_kernel(**args, L=300, route=route)
        truth = dplr_kernel_naive(**dict(zip(args, double(*args.values()), strict=True)), L=300)
        close(K.double(), truth, 5e-6)
    everything = {**args, "Lambda": Lambda.expand(4, 5), "P": P.expand(4, 5, 2)}
    everything |= {"C": C.expand(3, 4, 5), "dt": torch.linspace(0.1, 0.4, 4)}
    K = dplr_kernel(**everything, L=300, route=route)
    assert K.shape == (3, 4, 300)
    close(K[2, 3], dplr_kernel(Lambda, P, B, C, 0.4, 300, route=route), 5e-6)


def test_precision_is_that_of_the_widest_argument():
    Lambda, P, B, C = single(*trained(4, 1, seed=6))
    for change, dtype in [({}, F32), ({"C": C.to(C128)}, F64), ({"B": B.real.bfloat16()}, F32)]:
        args = {"Lambda": Lambda, "P": P, "B": B, "C": C, **change}
        for dt in (0.1, torch.tensor(0.1), torch.tensor(0.1, dtype=F64)):
            assert dplr_kernel(**args, dt=dt, L=20).dtype == dtype


# ---- golden vectors ------------------------------------------------------------------------------


def golden(measure: str, L: int) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"s4_{measure}_bilinear_L{L}.npz") as arrays:
        z = {name: torch.from_numpy(arrays[name]) for name in arrays}
    system = z["A"], z["P"].movedim(0, -1), z["B"], z["C"]
    return {**z, "dt": z["dt"][:, 0], "system": system}


every_golden = pytest.mark.parametrize("measure", ["legs", "legt", "fout"])


@every_golden
@exact_route
@pytest.mark.parametrize("L", [64, 1024])
def test_golden_kernel(measure, route, L):
    z = golden(measure, L)
    K = dplr_kernel(*z["system"], z["dt"], L, route=route)
    close(K, z["K_ref"], 1e-11)
    close(K, z["K"], 1e-11)


@every_golden
@every_route
def test_golden_kernel_in_float32(measure, route):
    z = golden(measure, 1024)
    K = dplr_kernel(*single(*z["system"]), z["dt"], 1024, route=route)
    close(K.double(), z["K_ref"], 2e-5)


@every_golden
@exact_route
def test_golden_rates(measure, route):
    z = golden(measure, 64)
    close(dplr_kernel(*z["system"], z["dt"] / 2, 128, route=route), z["K_rate05_ref"], 1e-11)
    close(dplr_kernel(*z["system"], z["dt"] * 2, 32, route=route), z["K_rate2_ref"], 1e-11)


@every_golden
def test_golden_steps_and_states(measure):
    z = golden(measure, 64)
    Lambda, P, B, C = z["system"][0], z["system"][1], z["B"][0], z["C"][0]
    for start, out, last in [(0, "y", "final_state_zero"), (1, "y_state0_ref", "final_state_ref")]:
        x, y = start * z["state0"], []
        for u_t in z["u"].unbind(-1):
            y_t, x = dplr_step(Lambda, P, B, C, z["dt"], u_t, x)
            y.append(y_t + z["D"][0] * u_t)
        close(torch.stack(y, -1), z[out], 1e-11)
        close(x, z[last], 1e-11)


# ---- discretization and the step -----------------------------------------------------------------


@every_measure
def test_discretize_is_bilinear_and_a_contraction(measure):
    for N in (2, 8, 64):
        Lambda, P, B, _ = nplr(measure, N)
        dt = torch.tensor([1e-4, 1e-2, 1.0, 100.0], dtype=F64)
        A, Br, _ = real_form(Lambda, P, B, B)
        want = bilinear(A, Br[:, None], dt)
        Ab, Bb = dplr_discretize(Lambda, P, B, dt)
        assert Ab.dtype == Bb.dtype == F64
        close(Ab.flatten(-2), want[0].flatten(-2), 1e-12)
        close(Bb, want[1][..., 0], 1e-12)
        assert (torch.linalg.matrix_norm(Ab, 2) < 1 + 1e-12).all()


@pytest.mark.parametrize("r", [1, 2, 3])
def test_steps_are_the_dense_recurrence(r):
    Lambda, P, B, C = trained(6, r, seed=7)
    dt, u = torch.tensor([0.3, 0.01], dtype=F64), draw(2, 60, seed=8, dtype=F64)
    x, y = draw(2, 6, seed=9), []
    A, Br, Cr = real_form(Lambda, P, B, C)
    Ab, Bb = bilinear(A, Br[:, None], dt)
    want, last = recur(Ab, Bb[..., 0], Cr, u, ops._plane(x))
    for u_t in u.unbind(-1):
        y_t, x = dplr_step(Lambda, P, B, C, dt, u_t, x)
        y.append(y_t)
    close(torch.stack(y, -1), want, 1e-12)
    close(ops._plane(x), last, 1e-12)


@every_measure
@pytest.mark.parametrize("dtype", [C64, C128])
def test_steps_are_the_convolution(measure, dtype):
    (Lambda, P, B, C), _ = dense_truth(measure)
    system = [x.to(dtype) for x in (Lambda, P, B, C)]
    u, x, y = (
        draw(3, 500, seed=10, dtype=F64).to(dtype.to_real()),
        torch.zeros(3, 32, dtype=dtype),
        [],
    )
    for u_t in u.unbind(-1):
        y_t, x = dplr_step(*system, DTS, u_t, x)
        y.append(y_t)
    assert x.dtype == dtype and y_t.dtype == u.dtype
    want = causal_conv(u.double(), dplr_kernel(*double(*system), DTS, 500))
    close(torch.stack(y, -1).double(), want, 1e-10 if dtype == C128 else 2e-5)


def test_a_step_is_linear_in_memory():
    n = 20000
    Lambda, P, B, C = trained(n, 1, seed=11)
    sizes = []
    keep = lambda x: sizes.append(x.numel()) or x  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        y, x = dplr_step(*leaves(Lambda, P, B, C), 0.01, torch.ones((), dtype=F64), draw(n))
    assert y.shape == () and x.shape == (n,) and max(sizes) <= 4 * n


# ---- gradients -----------------------------------------------------------------------------------


@every_measure
@every_route
def test_gradients_are_those_of_dense_powers(measure, route):
    system, _ = dense_truth(measure)
    weight = draw(3, 150, seed=12, dtype=F64)
    exact = leaves(*system, DTS)
    want = torch.autograd.grad((dplr_kernel_naive(*exact, 150) * weight).sum(), exact)
    args = leaves(*single(*system, DTS)) if route == "circle" else leaves(*system, DTS)
    K = dplr_kernel(*args, 150, route=route)
    got = torch.autograd.grad((K * weight).sum(), args)
    for ours, theirs in zip(got, want, strict=True):
        close(
            ours.reshape(-1).to(theirs.dtype),
            theirs.reshape(-1),
            1e-4 if route == "circle" else 1e-9,
        )


@pytest.mark.parametrize("route", ["cauchy", "dense"])
@pytest.mark.parametrize("r", [1, 2])
def test_gradcheck(route, r):
    Lambda, P, B, _ = trained(3, r, seed=13)
    args = leaves(Lambda - 0.1, P, B, draw(2, 3, seed=14), torch.tensor([0.3, 0.02], dtype=F64))
    kernel = functools.partial(dplr_kernel, L=9, route=route)
    assert gradcheck(kernel, args)
    assert gradgradcheck(kernel, args, atol=1e-4)
    assert gradcheck(lambda Lambda, P, B, C, dt: dplr_discretize(Lambda, P, B, dt), args)


def test_gradcheck_of_the_step():
    Lambda, P, B, C = trained(3, 2, seed=15)
    dt, u_t = torch.tensor([0.3, 0.02], dtype=F64), draw(2, seed=16, dtype=F64)
    args = leaves(Lambda - 0.1, P, B, C, dt, u_t, draw(2, 3, seed=17))
    assert gradcheck(dplr_step, args) and gradgradcheck(dplr_step, args, atol=1e-4)


@every_route
def test_no_table_of_poles_and_lags_is_kept(route):
    (Lambda, P, B, C), _ = dense_truth("legs")
    args = leaves(*single(Lambda, P, B, C, DTS))
    kept = {}
    keep = lambda x: kept.setdefault(x.data_ptr(), x).numel() and x  # noqa: E731
    L = 2**17
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        K = dplr_kernel(*args, L, route=route)
    assert K.shape == (3, L) and kept
    assert max(x.numel() for x in kept.values()) <= 3 * 4 * (
        L // 2 + 1
    )  # table: 3 * 32 * (L // 2 + 1)


# ---- routes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("L", "route"), [(1, "circle"), (8, "circle"), (9, "dense"), (9999, "dense")]
)
def test_auto_is_a_rule(L, route, taken):
    args = *single(*trained(2, 1, seed=18)), 0.1
    dplr_kernel(*args, L)
    dplr_kernel(*double(*args[:4]), 0.1, L)
    assert taken == [route, "dense"]


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    names = []
    for name, road in ops._ROUTES.items():
        spy = lambda *a, name=name, road=road: names.append(name) or road(*a)  # noqa: E731
        monkeypatch.setitem(ops._ROUTES, name, spy)
    return names


def test_auto_takes_the_circle_only_where_feedback_is_seen_to_be_weak(taken):
    Lambda, P, B, C = single(*trained(8, 2, seed=26))
    P = P / torch.linalg.vector_norm(P)
    Lambda[:] = -1e-6  # so that tr (G - I) is dt |P|^2 = dt, nearly
    for dt, P_, route in [
        (99.0, P, "circle"),
        (101.0, P, "dense"),
        (1e-3, 400 * P, "dense"),
        (torch.tensor([0.1, 101.0]), P, "dense"),
        (1e-3, float("nan") * P, "dense"),
        (1e30, 1e30 * P, "dense"),
    ]:
        dplr_kernel(Lambda, P_, B, C, dt, 64)
        assert taken.pop() == route
    torch.func.grad(lambda P: dplr_kernel(Lambda, P, B, C, 0.1, 64).sum())(P.real.clone())
    assert taken.pop() == "circle"
    torch.vmap(lambda C: dplr_kernel(Lambda, P, B, C, 0.1, 64))(C.expand(2, 8))
    assert taken.pop() == "circle"  # C has no part in it
    torch.vmap(lambda dt: dplr_kernel(Lambda, P, B, C, dt, 64))(torch.ones(2))
    assert taken.pop() == "dense"  # no value to look at


@every_measure
@pytest.mark.parametrize("N", [2, 64, 256])
def test_auto_keeps_its_promise_at_any_step(measure, N):
    """Float32, steps from 1e-6 to 1e6: (N + 2) 2^-24 |C| |Bb|, the bound of the dense product."""
    *system, C = single(*nplr(measure, N)[:3], draw(N // 2, seed=27))
    dt = torch.logspace(-6, 6, 7)
    truth = dplr_kernel(*double(*system, C, dt), 24 * N + 1, route="dense")
    Bb = dplr_discretize(*double(*system, dt))[1]
    scale = Bb.norm(dim=-1) * ops._real_row(C.to(C128)).norm()
    naive = dplr_kernel_naive(*double(*system, C, dt), 48)
    assert ((truth[:, :48] - naive).abs().amax(-1) < 1e-10 * scale).all()
    for L in (1, 2, 47, 24 * N, 24 * N + 1):
        K = dplr_kernel(*system, C, dt, L)
        assert ((K - truth[:, :L]).abs().amax(-1) < (N + 2) * 2.0**-24 * scale).all()


def test_auto_survives_a_strong_wire_that_the_circle_does_not():
    """B along P, poles on the axis, P large: all that Woodbury adds up has to cancel."""
    Lambda, P, _, C = single(*trained(16, 1, seed=70))
    args = Lambda, 30 * P, P[:, 0], C
    dt = torch.tensor([1.0, 100.0, 1e4])
    truth = dplr_kernel(*double(*args, dt), 300, route="dense")
    close(truth[:, :99], dplr_kernel_naive(*double(*args, dt), 99), 1e-6)
    close(dplr_kernel(*args, dt, 300).double(), truth, 2e-5)
    assert (dplr_kernel(*args, dt, 300, route="circle") - truth)[-1].abs().max() > (
        1e-3 * truth[-1].abs().max()
    )


def test_the_circle_folds_what_it_does_not_cut_off():
    """Values from C instead of C-tilde: sum over j of e^(-j tau) K[l + j L]."""
    Lambda, P, B, C = trained(5, 2, seed=28)
    K = dplr_kernel(Lambda, P, B, C, 0.1, 30 * 17, route="dense").unflatten(-1, (30, 17))
    dt, w = torch.tensor(0.1, dtype=F64), half_angles(17, 1.5)
    got = from_spectrum(dplr_spectrum(Lambda, P, B, C, dt, w, C128), 17, 1.5)
    close(got, (K * torch.exp(-1.5 * torch.arange(30, dtype=F64))[:, None]).sum(0), 1e-12)


# ---- compiled, mapped, lowered -------------------------------------------------------------------


@every_route
def test_compiles_to_one_graph(route):
    """One length for each road; with a second one, which makes L symbolic, where auto chooses."""
    torch.compiler.reset()
    args = leaves(*single(*trained(6, 2, seed=19)), torch.tensor([0.1, 0.2]))
    several = route == "auto"
    compiled = torch.compile(
        dplr_kernel, fullgraph=True, backend="aot_eager", dynamic=None if several else False
    )
    for L in (99, 300) if several else (300,):
        got, want = (f(*args, L, route=route) for f in (compiled, dplr_kernel))
        close(got.detach(), want.detach(), 1e-5)
        grads = (torch.autograd.grad(K.square().sum(), args) for K in (got, want))
        for ours, eager in zip(*grads, strict=True):
            close(ours.reshape(-1), eager.reshape(-1), 1e-3)


def test_the_step_compiles():
    torch.compiler.reset()
    Lambda, P, B, C = trained(6, 1, seed=20)
    args = Lambda, P, B, C, 0.1, torch.ones(2, dtype=F64), draw(2, 6, seed=21)
    compiled = torch.compile(dplr_step, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*args), dplr_step(*args), strict=True):
        close(got, want, 1e-13)


@exact_route
def test_vmap_is_the_batch(route):
    Lambda, P, B, _ = trained(5, 2, seed=22)
    C, dt = draw(4, 5, seed=23), torch.logspace(-2, 0, 4, dtype=F64)
    mapped = torch.vmap(lambda C, dt: dplr_kernel(Lambda, P, B, C, dt, 33, route=route))(C, dt)
    close(mapped, dplr_kernel(Lambda, P, B, C, dt, 33, route=route), 1e-12)


@every_route
def test_autocast_does_not_touch_the_kernel(route):
    args = *single(*trained(6, 2, seed=24)), torch.tensor([0.1, 0.2])
    plain = dplr_kernel(*args, 300, route=route)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dplr_kernel(*args, 300, route=route), plain)


@every_route
def test_meta_tensors_give_a_shape(route):
    meta = [x.to("meta") for x in single(*trained(5, 2, seed=25))]
    assert dplr_kernel(*meta, 0.1, 33, route=route).shape == (33,)


# ---- bad input -----------------------------------------------------------------------------------

LAM, ONE = -torch.ones(3, dtype=C128), torch.ones(3, dtype=F64)
NAN = float("nan")
BAD = {  # overrides, error, message
    "widths": ({"B": ONE[:2]}, ValueError, r"of one width n >= 1, got Lambda \(3,\).*B \(2,\)"),
    "width of P": ({"P": ONE[:2, None]}, ValueError, r"of one width.*P\[\.\.\., 0\] \(2,\)"),
    "P without rank": ({"P": ONE}, ValueError, r"want P \(\.\.\., n, r\) with r >= 1, got \(3,\)"),
    "rank zero": ({"P": ONE[:, None][:, :0]}, ValueError, r"r >= 1, got \(3, 0\)"),
    "P a list": ({"P": [[1.0]]}, TypeError, "want P as a torch.Tensor, got list"),
    "no poles": (
        {"Lambda": LAM[:0], "B": ONE[:0], "C": ONE[:0], "P": ONE[:0, None]},
        ValueError,
        "of one width n >= 1",
    ),
    "axes": (
        {"B": ONE.expand(2, 3), "C": ONE.expand(4, 3)},
        ValueError,
        r"leading axes that broadcast.*C \(4, 3\)",
    ),
    "axes of dt": ({"C": ONE.expand(4, 3), "dt": torch.ones(5)}, ValueError, r"dt \(5,\)"),
    "real poles": ({"Lambda": LAM.real}, TypeError, "want Lambda complex.*float64"),
    "integers": ({"B": ONE.long()}, TypeError, "want B of a floating.*int64"),
    "complex dt": ({"dt": torch.ones((), dtype=C64)}, TypeError, "want dt real, got.*complex64"),
    "unstable": ({"Lambda": LAM + 1.5}, ValueError, "want finite poles with Re Lambda <= 0.*0.5"),
    "NaN pole": ({"Lambda": LAM * NAN}, ValueError, "want finite poles"),
    "zero dt": ({"dt": 0.0}, ValueError, "want dt finite and > 0, got 0"),
    "NaN dt": ({"dt": torch.tensor(NAN)}, ValueError, "want dt finite and > 0, got nan"),
    "negative dt": ({"dt": -0.1}, ValueError, "want dt finite and > 0, got -0.1"),
    "dt a string": ({"dt": "0.1"}, TypeError, "want dt as a number or a tensor, got str"),
    "L = 0": ({"L": 0}, ValueError, "want L >= 1, got 0"),
    "L float": ({"L": 8.0}, TypeError, "want L as an int, got float"),
    "L bool": ({"L": True}, TypeError, "want L as an int, got bool"),
    "devices": ({"C": ONE.to("meta")}, ValueError, "one device.*C on meta"),
}
GOOD = {"Lambda": LAM, "P": ONE[:, None], "B": ONE, "C": ONE, "dt": 0.1, "L": 4}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kernel", [dplr_kernel, dplr_kernel_naive])
def test_bad_input(kernel, case):
    change, error, message = BAD[case]
    with pytest.raises(error, match=message):
        kernel(**{**GOOD, **change})
    kernel(**GOOD)


@pytest.mark.parametrize("case", [c for c in BAD if "L" not in BAD[c][0]])
def test_bad_input_to_the_others(case):
    change, error, message = BAD[case]
    args = {k: v for k, v in {**GOOD, **change}.items() if k != "L"}
    state = torch.zeros(args["C"].shape if isinstance(args["C"], Tensor) else 3, dtype=C128)
    if "dt" not in change:
        with pytest.raises(error, match=message):
            real_form(*(args[k] for k in ("Lambda", "P", "B", "C")))
    if "C" not in change:
        with pytest.raises(error, match=message):
            dplr_discretize(*(args[k] for k in ("Lambda", "P", "B", "dt")))
    if "devices" not in case:
        with pytest.raises(error, match=message):
            dplr_step(**args, u_t=torch.ones(()), x=state)


def test_bad_input_to_the_step():
    args = {k: v for k, v in GOOD.items() if k != "L"}
    good = {**args, "u_t": torch.ones(()), "x": LAM}
    dplr_step(**good)
    for change, error, message in [
        ({"x": ONE}, TypeError, "want x complex, got torch.float64"),
        ({"x": LAM[:2]}, ValueError, r"of one width.*x \(2,\)"),
        ({"x": LAM.expand(2, 3), "u_t": torch.ones(4)}, ValueError, r"broadcast.*u_t \(4,\)"),
        ({"u_t": LAM[0]}, TypeError, "want u_t real, got torch.complex128"),
        ({"u_t": 1.0}, TypeError, "want u_t as a torch.Tensor, got float"),
    ]:
        with pytest.raises(error, match=message):
            dplr_step(**{**good, **change})


@pytest.mark.parametrize("route", ["fft", None, "Cauchy", ""])
def test_unknown_route(route):
    with pytest.raises(ValueError, match=r'want route "auto", "cauchy", "dense" or "circle", got'):
        dplr_kernel(**GOOD, route=route)


def test_the_circle_is_for_float32_only():
    with pytest.raises(ValueError, match="for a float64 kernel"):
        dplr_kernel(**GOOD, route="circle")
