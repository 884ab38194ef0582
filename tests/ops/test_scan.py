"""Scans: recurrences whose coefficients change from sample to sample, by pairs and in steps."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.init.nplr import nplr
from s4lite.ops.conv import causal_conv
from s4lite.ops.diag_state import diag_last_state, diag_response, diag_step
from s4lite.ops.dplr import dplr_kernel, dplr_step
from s4lite.ops.scan import diag_scan, dplr_scan, scan, scan_naive
from s4lite.ops.vandermonde import log_discretize, vandermonde

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
LENGTHS = [1, 2, 3, 4, 5, 31, 64, 99, 1023]
every_disc = pytest.mark.parametrize("disc", ["zoh", "bilinear"])
both = pytest.mark.parametrize("run", [scan_naive, scan])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uneven(*shape: int, seed: int = 0) -> Tensor:
    """Steps between 0.001 and 1, no two alike."""
    g = torch.Generator().manual_seed(seed)
    return 10 ** (-3 * torch.rand(*shape, generator=g, dtype=F64))


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    """Equal up to tol times the largest entry."""
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


# ------------------------------------------------------------------ the scan itself


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("start", [True, False])
def test_scan_is_the_recurrence(L, dtype, start):
    """Unequal coefficients: a scan that took powers of one would fail at L = 3."""
    a, b = 0.7 * draw(3, L, dtype=dtype), draw(3, L, seed=1, dtype=dtype)
    x0 = draw(3, seed=2, dtype=dtype) if start else None
    x, want = (torch.zeros(3, dtype=dtype) if x0 is None else x0), []
    for k in range(L):
        x = a[:, k] * x + b[:, k]
        want.append(x)
    close(scan_naive(a, b, x0), torch.stack(want, -1), 1e-15)
    close(scan(a, b, x0), torch.stack(want, -1))


def test_scan_by_hand():
    a, b = torch.tensor([9.0, 2.0, 0.0, 3.0]), torch.tensor([1.0, 1.0, 5.0, 1.0])
    for run in (scan, scan_naive):
        assert run(a, b).tolist() == [1, 3, 5, 16]  # a_0 is not used from rest, a_2 = 0 forgets
        assert run(a, b, torch.tensor(1.0)).tolist() == [10, 21, 5, 16]


@pytest.mark.parametrize("L", [2, 99, 1023])
def test_scan_works_where_products_of_the_coefficients_vanish(L):
    """Through logarithms and quotients of products, 1e-30^L would be 0 / 0."""
    a, b = torch.full((L,), 1e-30, dtype=F64), draw(L)
    a[::3] = 0.0
    close(scan(a, b), scan_naive(a, b), 1e-15)
    assert scan(a, b).isfinite().all()


def test_scan_in_float32_does_not_lose_the_angle():
    """The state of a slow pole after 2^14 steps; a float32 cumsum of log a is off by 1e-3."""
    L = 1 << 14
    g = torch.Generator().manual_seed(3)
    z = (-1e-5 + 1.2j) * (0.5 + torch.rand(L, generator=g, dtype=F64))
    b = draw(L, dtype=C128)
    a = z.exp().to(C64)
    truth = scan_naive(a.to(C128), b.to(C64).to(C128))
    sums = a.log().cumsum(0)
    by_logs = sums.exp() * ((-sums).exp() * b.to(C64)).cumsum(0)
    off = [(x - truth).abs().max() / truth.abs().max() for x in (scan(a, b.to(C64)), by_logs)]
    assert off[0] < 2e-5 and off[1] > 10 * off[0]


@pytest.mark.parametrize("shapes", [((5,), (2, 3, 5)), ((2, 1, 5), (3, 5)), ((2, 3, 5), (5,))])
@pytest.mark.parametrize("start", [(), (3,), (4, 1, 1)])
def test_leading_axes_broadcast(shapes, start):
    a, b, x0 = (draw(*shape, seed=s) for s, shape in enumerate([*shapes, start]))
    full = torch.broadcast_shapes(shapes[0][:-1], shapes[1][:-1], start)
    want = scan_naive(a.expand(*full, 5), b.expand(*full, 5), x0.expand(full))
    for run in (scan, scan_naive):
        close(run(a, b, x0), want)


@pytest.mark.parametrize("dtypes", [(F32, F64), (F64, C64), (C64, F32), (C128, F32)])
def test_dtypes_are_promoted(dtypes):
    a, b = (draw(3, 9, seed=s).to(dtype) for s, dtype in enumerate(dtypes))
    want = torch.promote_types(*dtypes)
    assert scan(a, b).dtype == scan_naive(a, b).dtype == want
    assert scan(a, b, draw(3, dtype=C128)).dtype == C128


@pytest.mark.parametrize("L", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("dtype", [F64, C128])
def test_gradients(L, dtype):
    a = (0.8 * draw(2, 1, L, dtype=dtype)).requires_grad_()
    b = draw(3, L, seed=1, dtype=dtype).requires_grad_()
    x0 = draw(2, 1, seed=2, dtype=dtype).requires_grad_()
    assert gradcheck(scan, (a, b, x0))
    assert gradcheck(scan, (a, b))
    if L < 11:
        assert gradgradcheck(scan, (a, b, x0))


def test_the_adjoint_is_the_reversed_scan_with_the_conjugate_of_the_next_coefficient():
    a, b = 0.7 * draw(9, dtype=C128), draw(9, seed=1, dtype=C128).requires_grad_()
    g = draw(9, seed=2, dtype=C128)
    (p,) = torch.autograd.grad(scan(a, b), b, g)
    want = [g[8]]
    for k in range(7, -1, -1):
        want.append(g[k] + a[k + 1].conj() * want[-1])
    close(p, torch.stack(want[::-1]))


def test_gradients_are_those_of_the_naive_twin_at_length():
    a, b = 0.9 * draw(4, 1023, dtype=C128), draw(4, 1023, seed=1, dtype=C128)
    x0 = draw(4, seed=2, dtype=C128)
    inputs = [x.requires_grad_() for x in (a / a.abs().clamp(min=1), b, x0)]
    g = draw(4, 1023, seed=5, dtype=C128)
    slopes = [torch.autograd.grad(run(*inputs), inputs, g) for run in (scan, scan_naive)]
    for got, want in zip(*slopes, strict=True):
        close(got, want)


def test_scan_under_vmap():
    a, b = 0.7 * draw(4, 9), draw(5, 9, seed=1)
    got = torch.vmap(lambda a: torch.vmap(lambda b: scan(a, b))(b))(a)
    close(got, scan_naive(a[:, None], b))
    slope = torch.vmap(torch.func.grad(lambda a: scan(a, b).square().sum()))(a)
    leaf = a.clone().requires_grad_()
    (want,) = torch.autograd.grad(scan_naive(leaf[:, None], b).square().sum(), leaf)
    close(slope, want)


def test_scan_compiles_in_one_graph():
    a, b = 0.7 * draw(3, 37), draw(3, 37, seed=1)
    leaf = a.clone().requires_grad_()
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    y = compiled(leaf, b)
    close(y.detach(), scan_naive(a, b))
    (got,) = torch.autograd.grad(y.square().sum(), leaf)
    (want,) = torch.autograd.grad(scan_naive(leaf, b).square().sum(), leaf)
    close(got, want)


@pytest.mark.parametrize("dynamic", [None, True])
def test_one_compiled_scan_serves_several_batches(dynamic):
    """From the second batch size on, sizes are symbols."""
    torch.compiler.reset()
    Lambda, B, C = system()
    scans = torch.compile(scan, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    walks = torch.compile(diag_scan, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch in (2, 3, 5):
        a, b = 0.7 * draw(batch, 10), draw(batch, 10, seed=1)
        close(scans(a, b), scan_naive(a, b))
        args = Lambda, B, C, uneven(3, 10), draw(batch, 3, 10)
        close(walks(*args)[0], diag_scan(*args)[0])


BAD = [
    ("want a as a torch.Tensor", TypeError, lambda run: run([1.0], torch.ones(1))),
    ("floating or complex", TypeError, lambda run: run(torch.ones(3), torch.ones(3).long())),
    ("of one length", ValueError, lambda run: run(torch.ones(3), torch.ones(4))),
    ("of one length", ValueError, lambda run: run(torch.ones(1), torch.ones(4))),
    ("of one length", ValueError, lambda run: run(torch.ones(()), torch.ones(4))),
    (">= 1", ValueError, lambda run: run(torch.ones(0), torch.ones(0))),
    ("broadcast", ValueError, lambda run: run(torch.ones(2, 3), torch.ones(3, 3))),
    ("broadcast", ValueError, lambda run: run(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3))),
    ("want x0 as", TypeError, lambda run: run(torch.ones(3), torch.ones(3), 1.0)),
    ("one device", ValueError, lambda run: run(torch.ones(3), torch.ones(3, device="meta"))),
]


@both
@pytest.mark.parametrize(("said", "error", "call"), BAD)
def test_bad_input_of_scan(run, said, error, call):
    with pytest.raises(error, match=said):
        call(run)


# ------------------------------------------------------------------ diagonal systems


def system(H: int = 3, n: int = 8, seed: int = 0):
    Lambda = torch.stack([s4d_lin(2 * n), s4d_inv(2 * n), s4d_lin(2 * n) / 3])[:H]
    B, C = draw(H, n, seed=seed, dtype=C128), draw(H, n, seed=seed + 1, dtype=C128)
    return Lambda, B, C


def walk(Lambda, B, C, dt, u, x, disc):
    """One `diag_step` after the other, each discretized for its own dt."""
    y = []
    for dt_k, u_k in zip(dt.unbind(-1), u.unbind(-1), strict=True):
        nu, phi = log_discretize(Lambda, dt_k, disc)
        y_k, x = diag_step(nu, phi * B, C, u_k, x)
        y.append(y_k)
    return torch.stack(y, -1), x


def runner(run: str, disc: str = "zoh"):
    """`diag_scan`, or `dplr_scan` with a low rank part of rank 2, on one system."""
    Lambda, B, C = system()
    if run == "diag":
        return lambda dt, u, x: diag_scan(Lambda, B, C, dt, u, x, disc)
    P = draw(3, 8, 2, seed=9, dtype=C128)
    return lambda dt, u, x: dplr_scan(Lambda, P, B, C, dt, u, x)


@pytest.mark.parametrize("L", [1, 2, 31, 32, 33, 99, 1023])
@every_disc
def test_diag_scan_is_a_walk_with_unequal_steps(L, disc):
    Lambda, B, C = system()
    dt, u, x0 = uneven(2, 3, L), draw(2, 3, L, seed=4), draw(2, 3, 8, seed=5, dtype=C128)
    y, x = diag_scan(Lambda, B, C, dt, u, x0, disc)
    want, x_want = walk(Lambda, B, C, dt, u, x0, disc)
    close(y, want)
    close(x, x_want)
    close(diag_scan(Lambda, B, C, dt, u, disc=disc)[0], walk(Lambda, B, C, dt, u, 0 * x0, disc)[0])


@every_disc
def test_diag_scan_with_equal_steps_is_the_convolution(disc):
    Lambda, B, C = system()
    dt, u = torch.tensor([0.01, 0.1, 0.4], dtype=F64), draw(2, 3, 300)
    x0 = draw(2, 3, 8, seed=5, dtype=C128)
    nu, phi = log_discretize(Lambda, dt, disc)
    want = causal_conv(u, vandermonde(C * phi * B, nu, 300)) + diag_response(nu, C, x0, 300)
    y, x = diag_scan(Lambda, B, C, dt[:, None].expand(3, 300), u, x0, disc)
    close(y, want)
    close(x, diag_last_state(nu, phi * B, u, x0))


@pytest.mark.parametrize("run", ["diag", "dplr"])
@every_disc
def test_pieces_are_the_whole(run, disc):
    go = runner(run, disc)
    dt, u, x0 = uneven(3, 99), draw(2, 3, 99), draw(2, 3, 8, dtype=C128)
    y, x = go(dt, u, x0)
    first, middle = go(dt[:, :40], u[..., :40], x0)
    second, last = go(dt[:, 40:], u[..., 40:], middle)
    close(torch.cat([first, second], -1), y)
    close(last, x)


@pytest.mark.parametrize("run", ["diag", "dplr"])
@every_disc
def test_a_step_of_no_time_does_nothing(run, disc):
    """Not even where u is huge: padding with dt = 0 leaves the state where it was."""
    go = runner(run, disc)
    dt, u, x0 = uneven(3, 50), draw(2, 3, 50), draw(2, 3, 8, dtype=C128)
    for L in (20, 13, 1):
        dt[:, L:], u[..., L:] = 0.0, 1e6
        close(go(dt, u, x0)[1], go(dt[:, :L], u[..., :L], x0)[1], 1e-14)
    assert torch.equal(go(torch.zeros(3, 5, dtype=F64), u[..., :5], x0)[1], x0)


def test_two_silent_steps_are_one_long_one():
    """Zero-order hold: without input only the sum of the gaps counts."""
    Lambda, B, C = system()
    x0, u = draw(3, 8, dtype=C128), torch.zeros(3, 4, dtype=F64)
    dt = torch.tensor([0.01, 0.3, 0.09, 0.2], dtype=F64)
    _, x = diag_scan(Lambda, B, C, dt, u, x0)
    _, once = diag_scan(Lambda, B, C, dt.sum()[None], u[:, :1], x0)
    close(x, once)


@every_disc
def test_diag_scan_gradients(disc):
    Lambda, B, C = (x[:, :2].clone().requires_grad_() for x in system(H=2))
    dt, u = uneven(1, 2, 7).requires_grad_(), draw(2, 2, 7, seed=3).requires_grad_()
    x0 = draw(2, 2, 2, seed=4, dtype=C128).requires_grad_()
    assert gradcheck(lambda *args: diag_scan(*args, disc), (Lambda, B, C, dt, u, x0))


@pytest.mark.parametrize("run", ["diag", "dplr"])
def test_gradients_over_several_blocks_are_those_of_a_walk(run):
    """L = 99 is three blocks and a bit, and the states inside them are computed twice."""
    Lambda, B, C = (x.clone().requires_grad_() for x in system())
    P = (0.5 * draw(3, 8, 1, seed=9, dtype=C128)).requires_grad_()
    dt, u = uneven(3, 99).requires_grad_(), draw(2, 3, 99, seed=3).requires_grad_()
    x0 = draw(2, 3, 8, seed=4, dtype=C128).requires_grad_()
    leaves = [Lambda, B, C, dt, u, x0] + ([P] if run == "dplr" else [])
    g, h = draw(2, 3, 99, seed=6), draw(2, 3, 8, seed=7, dtype=C128)
    if run == "diag":
        results = diag_scan(Lambda, B, C, dt, u, x0), walk(Lambda, B, C, dt, u, x0, "zoh")
    else:
        results = dplr_scan(Lambda, P, B, C, dt, u, x0), walk_dplr(Lambda, P, B, C, dt, u, x0)
    slopes = [torch.autograd.grad(result, leaves, (g, h)) for result in results]
    for got, want in zip(*slopes, strict=True):
        close(got, want)


def test_double_backward_over_several_blocks():
    Lambda, B, C = (x[:1, :1].clone() for x in system(H=1))
    dt, u = uneven(1, 70), draw(1, 70, seed=3).requires_grad_()
    C.requires_grad_()
    y, _ = diag_scan(Lambda, B, C, dt, u)
    (slope,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
    (got,) = torch.autograd.grad(slope.square().sum(), C)
    want_y, _ = walk(Lambda, B, C, dt, u, torch.zeros(1, 1, dtype=C128), "zoh")
    (slope,) = torch.autograd.grad(want_y.square().sum(), u, create_graph=True)
    (want,) = torch.autograd.grad(slope.square().sum(), C)
    close(got, want)


@pytest.mark.parametrize("run", ["diag", "dplr"])
def test_float32_costs_only_the_rounding_of_the_output(run):
    go = runner(run)
    dt, u, x0 = uneven(3, 1023), draw(2, 3, 1023).float(), draw(2, 3, 8, dtype=C64)
    (y, x), (y_64, x_64) = go(dt, u, x0), go(dt, u.double(), x0.to(C128))
    assert (y.dtype, x.dtype, y_64.dtype, x_64.dtype) == (F32, C64, F64, C128)
    close(y.double(), y_64, 2e-7)
    close(x.to(C128), x_64, 2e-7)
    half, state = go(dt, u.bfloat16(), x0)
    assert half.dtype == F32 and state.dtype == C64


@pytest.mark.parametrize("run", ["diag", "dplr"])
def test_memory_does_not_hold_all_states(run):
    """What autograd keeps is about sqrt(L) states, not L of them: storages, not shapes."""
    Lambda, B, C = (x[:1].clone().requires_grad_() for x in system(H=1, n=32))
    P, shares = torch.ones(1, 32, 1, dtype=C128), []
    for L in (1 << 10, 1 << 12):
        saved = {}

        def note(x, saved=saved):
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        dt, u = uneven(1, L), draw(1, L)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            if run == "diag":
                y, x = diag_scan(Lambda, B, C, dt, u)
            else:
                y, x = dplr_scan(Lambda, P, B, C, dt, u)
        assert y.requires_grad and x.requires_grad
        shares.append((sum(saved.values()) - dt.nbytes - u.nbytes) / (32 * L * 16))
        assert shares[-1] < 2 / math.sqrt(L)
    assert shares[1] < 0.6 * shares[0]


@pytest.mark.parametrize("run", ["diag", "dplr"])
@pytest.mark.parametrize("L", [5, 99])
def test_the_last_state_keeps_no_other_alive(run, L):
    x = runner(run)(uneven(3, L), draw(2, 3, L), draw(2, 3, 8, dtype=C128))[1]
    assert x.untyped_storage().nbytes() == x.numel() * x.element_size()


@pytest.mark.parametrize(
    "pole", [0.0, -1e-320, 1e-300j, -1e-12, 1e-5j, -0.02, 0.02j, -30 + 40j, -800]
)
def test_hold_at_tiny_and_large_poles(pole):
    """Value, gradient and gradient of the gradient: there are quotients by the pole."""
    at = torch.tensor([pole], dtype=C128, requires_grad=True)
    dt = torch.tensor([0.7, 0.0, 0.3], dtype=F64, requires_grad=True)
    one, u = torch.ones(1, dtype=C128), draw(3)
    got, want = [], []
    for results in (got, want):
        if results is got:
            y, x = diag_scan(at, one, one, dt, u)
        else:  # by twelve terms of the series of (e^z - 1) / z, or the quotient
            z = dt[:, None] * at
            if z.abs().max() < 0.1:
                phi = sum(z**k / math.factorial(k + 1) for k in range(12)) * dt[:, None]
            else:
                phi = torch.expm1(z) / at
            x, y = torch.zeros(1, dtype=C128), []
            for e_k, b_k in zip(z.exp(), phi * u[:, None], strict=True):
                x = e_k * x + b_k
                y.append(2 * x.real)
            y = torch.cat(y)
        loss = y.square().sum() + (x * x.conj()).real.sum()
        first = torch.autograd.grad(loss, (at, dt), create_graph=True)
        again = torch.autograd.grad(first[0].abs().square().sum(), (at, dt))
        results += [y.detach(), x.detach(), *(g.detach() for g in first), *again]
    for g, w in zip(got, want, strict=True):
        assert g.isfinite().all()
        assert (g - w).abs().max() <= 1e-10 * w.abs().max()


def test_a_pole_beyond_all_powers_leaves_no_nan():
    Lambda = torch.tensor([-1e80 + 1e80j], dtype=C128, requires_grad=True)
    y, _ = diag_scan(Lambda, 0 * Lambda.detach() + 1, 0 * Lambda.detach() + 1, uneven(5), draw(5))
    y.sum().backward()
    assert y.isfinite().all() and Lambda.grad.isfinite().all()


@pytest.mark.parametrize("run", [diag_scan, dplr_scan])
def test_no_value_is_read_and_nothing_is_made_elsewhere(run):
    """Meta tensors have no values and mix with no others: what stops a GPU's host fails."""
    given = {k: x.to("meta").requires_grad_() for k, x in arguments().items()}
    given |= {k: torch.empty(3, 99, device="meta") for k in ("dt", "u")}
    if run is diag_scan:
        given.pop("P")
    y, x = run(**given)
    assert y.device.type == x.device.type == "meta" and y.shape == (3, 99)
    y.sum().backward()


@pytest.mark.parametrize("run", ["diag", "dplr"])
def test_a_batch_of_none(run):
    y, x = runner(run)(uneven(3, 40), draw(0, 3, 40), draw(0, 3, 8, dtype=C128))
    assert y.shape == (0, 3, 40) and x.shape == (0, 3, 8)


def test_diag_scan_compiles_and_knows_torch_func():
    Lambda, B, C = system()
    dt, u = uneven(3, 99), draw(2, 3, 99)
    leaf = Lambda.clone().requires_grad_()
    want_y, _ = diag_scan(leaf, B, C, dt, u)
    (want,) = torch.autograd.grad(want_y.square().sum(), leaf)
    run = torch.compile(diag_scan, fullgraph=True, backend="aot_eager")
    y, _ = run(leaf, B, C, dt, u)
    close(y.detach(), want_y.detach())
    close(torch.autograd.grad(y.square().sum(), leaf)[0], want)
    by_func = torch.func.grad(lambda Lambda: diag_scan(Lambda, B, C, dt, u)[0].square().sum())
    close(by_func(Lambda), want)


# ------------------------------------------------------------------ diagonal plus low rank


def walk_dplr(Lambda, P, B, C, dt, u, x):
    y = []
    for dt_k, u_k in zip(dt.unbind(-1), u.unbind(-1), strict=True):
        y_k, x = dplr_step(Lambda, P, B, C, dt_k, u_k, x)
        y.append(y_k)
    return torch.stack(y, -1), x


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("L", [1, 2, 33, 99])
def test_dplr_scan_is_a_walk_with_unequal_steps(measure, L):
    Lambda, P, B, _ = nplr(measure, 16)
    C, x0 = draw(3, 8, dtype=C128), draw(2, 3, 8, seed=5, dtype=C128)
    dt, u = uneven(2, 3, L), draw(2, 3, L, seed=4)
    y, x = dplr_scan(Lambda, P, B, C, dt, u, x0)
    want, x_want = walk_dplr(Lambda, P, B, C, dt, u, x0)
    close(y, want)
    close(x, x_want)
    close(dplr_scan(Lambda, P, B, C, dt, u)[0], walk_dplr(Lambda, P, B, C, dt, u, 0 * x0)[0])


@pytest.mark.parametrize("measure", ["legs", "legt", "fout"])
def test_dplr_scan_with_equal_steps_is_the_convolution(measure):
    Lambda, P, B, _ = nplr(measure, 64)
    C, u = draw(2, 32, dtype=C128), draw(2, 300)
    dt = torch.tensor([1e-3, 0.05], dtype=F64)
    want = causal_conv(u, dplr_kernel(Lambda, P, B, C, dt, 300))
    close(dplr_scan(Lambda, P, B, C, dt[:, None].expand(2, 300), u)[0], want, 1e-11)


def test_dplr_scan_without_low_rank_is_the_diagonal_one():
    Lambda, B, C = system()
    dt, u, x0 = uneven(3, 99), draw(2, 3, 99), draw(3, 8, dtype=C128)
    y, x = dplr_scan(Lambda, torch.zeros(3, 8, 1, dtype=C128), B, C, dt, u, x0)
    want, x_want = diag_scan(Lambda, B, C, dt, u, x0, "bilinear")
    close(y, want)
    close(x, x_want)


def test_dplr_scan_gradients():
    Lambda, B, C = (x[:, :2].clone().requires_grad_() for x in system(H=2))
    P = draw(2, 2, 2, seed=8, dtype=C128).requires_grad_()
    dt, u = uneven(2, 5).requires_grad_(), draw(2, 2, 5, seed=3).requires_grad_()
    x0 = draw(2, 2, 2, seed=4, dtype=C128).requires_grad_()
    assert gradcheck(dplr_scan, (Lambda, P, B, C, dt, u, x0))


SIZES = {"Lambda": (3, 4), "P": (3, 4, 1), "B": (3, 4), "C": (3, 4), "dt": (3, 9), "u": (2, 3, 9)}


def arguments(**changed):
    made = {k: torch.ones(s, dtype=F64 if k in ("dt", "u") else C128) for k, s in SIZES.items()}
    return made | {"Lambda": -made["Lambda"]} | changed


ILL = [
    ({"dt": -torch.ones(3, 9)}, ValueError, "want dt finite and >= 0, got -1"),
    ({"dt": torch.full((3, 9), math.nan)}, ValueError, "want dt finite and >= 0, got nan"),
    ({"dt": torch.full((3, 9), math.inf)}, ValueError, "want dt finite and >= 0, got inf"),
    ({"dt": torch.ones(3, 8)}, ValueError, "of one length"),
    ({"dt": torch.ones(())}, ValueError, "of one length"),
    ({"dt": 0.1}, TypeError, "want dt as a torch.Tensor"),
    ({"dt": torch.ones(3, 9).long()}, TypeError, "floating"),
    ({"dt": torch.ones(3, 9, dtype=C128)}, TypeError, "want dt real"),
    ({"u": torch.ones(3, 9, dtype=C128)}, TypeError, "want u real"),
    ({"u": torch.ones(5, 9)}, ValueError, "broadcast"),
    ({"u": torch.ones(3, 0), "dt": torch.ones(3, 0)}, ValueError, ">= 1"),
    ({"Lambda": torch.ones(3, 4, dtype=C128)}, ValueError, "Re Lambda <= 0"),
    ({"Lambda": -torch.ones(3, 4)}, TypeError, "want Lambda complex"),
    ({"B": torch.ones(3, 5, dtype=C128)}, ValueError, "one width"),
    ({"C": 1.0}, TypeError, "want C as a torch.Tensor"),
    ({"x0": torch.ones(3, 4)}, TypeError, "want x0 complex"),
    ({"x0": torch.ones(3, 5, dtype=C128)}, ValueError, "one width"),
    ({"x0": torch.ones(3, 4, dtype=C128, device="meta")}, ValueError, "one device"),
]


@pytest.mark.parametrize(("changed", "error", "said"), ILL)
@pytest.mark.parametrize("run", [diag_scan, dplr_scan])
def test_bad_input(run, changed, error, said):
    given = arguments(**changed)
    if run is diag_scan:
        given.pop("P")
    with pytest.raises(error, match=said):
        run(**given)


def test_bad_input_of_one_of_them():
    given = arguments()
    with pytest.raises(ValueError, match=r"want P \(\.\.\., n, r\)"):
        dplr_scan(**given | {"P": torch.ones(4, dtype=C128)})
    given.pop("P")
    with pytest.raises(ValueError, match='want disc "zoh" or "bilinear"'):
        diag_scan(**given, disc="euler")
