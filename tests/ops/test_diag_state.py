"""The ops that a layer adds: single steps, states at a cut, and convolution in two directions."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.ops.checks import check_ends
from s4lite.ops.conv import causal_conv, two_sided_conv
from s4lite.ops.diag_state import diag_last_state, diag_response, diag_step
from s4lite.ops.recurrence import recur
from s4lite.ops.vandermonde import diag_discretize, log_discretize, vandermonde

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
LENGTHS = [1, 2, 99, 1023]
every_disc = pytest.mark.parametrize("disc", ["zoh", "bilinear"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    """Equal up to tol times the largest entry."""
    assert got.shape == want.shape
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


def system(disc: str, H: int = 3, n: int = 8, seed: int = 0):
    """nu, Bb, C of H systems, and a state for a batch of 2."""
    dt = torch.logspace(-3, -0.5, H, dtype=F64)
    nu, phi = log_discretize(s4d_lin(2 * n), dt, disc)
    B, C = draw(H, n, seed=seed, dtype=C128), draw(H, n, seed=seed + 1, dtype=C128)
    return nu, phi * B, C, draw(2, H, n, seed=seed + 2, dtype=C128)


def walk(nu: Tensor, Bb: Tensor, C: Tensor, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    y = []
    for u_t in u.unbind(-1):
        y_t, x = diag_step(nu, Bb, C, u_t, x)
        y.append(y_t)
    return torch.stack(y, -1), x


# ------------------------------------------------------------------ one step


@every_disc
def test_step_is_the_dense_recurrence(disc):
    dt, u = torch.tensor([0.01, 0.3], dtype=F64), draw(2, 40, seed=3)
    B, C, x0 = (draw(2, 4, seed=s, dtype=C128) for s in range(3))
    nu, phi = log_discretize(s4d_inv(8), dt, disc)
    Ab, Bb = diag_discretize(s4d_inv(8), B, dt, disc)
    y, x = recur(torch.diag_embed(Ab), Bb, C, u.to(C128), x0)
    got = walk(nu, phi * B, C, u, x0)
    close(got[0], 2 * y.real)
    close(got[1], x)


def test_step_keeps_the_dtype_of_the_state():
    nu, Bb, C, x = system("zoh")
    for dtype in (C64, C128):
        y, after = diag_step(nu, Bb, C, draw(2, 3), x.to(dtype))
        assert after.dtype == dtype and y.dtype == after.real.dtype and not y.is_complex()


@pytest.mark.parametrize("init", [s4d_lin, s4d_inv])
@every_disc
def test_step_in_float32_rounds_no_coefficient(disc, init):
    """Ab rounded, or Ab - 1 rounded, exceeds this bound at one end or the other of the clocks."""
    dt = torch.logspace(-4, -1, 6, dtype=F64)
    nu, Bb = log_discretize(init(64), dt, disc)
    C, u = draw(6, 32, seed=1, dtype=C128), draw(6, 4096, seed=2)
    y, _ = walk(nu, Bb, C, u.float(), torch.zeros(6, 32, dtype=C64))
    truth = causal_conv(u.float().double(), vandermonde(C * Bb, nu, 4096))
    assert ((y - truth).abs().amax(-1) / truth.abs().amax(-1)).max() < 3e-6


# ------------------------------------------------------------------ stop and go on


@pytest.mark.parametrize("L", LENGTHS)
@every_disc
def test_response_and_last_state_are_a_walk(disc, L):
    nu, Bb, C, x0 = system(disc)
    u = draw(2, 3, L, seed=4)
    y, x = walk(nu, Bb, C, u, x0)
    silent, x_silent = walk(nu, Bb, C, 0 * u, x0)
    close(diag_response(nu, C, x0, L), silent)
    close(diag_last_state(nu, Bb, 0 * u, x0), x_silent)
    close(diag_last_state(nu, Bb, u), walk(nu, Bb, C, u, 0 * x0)[1])
    close(diag_last_state(nu, Bb, u, x0), x)
    close(causal_conv(u, vandermonde(C * Bb, nu, L)) + diag_response(nu, C, x0, L), y)


@pytest.mark.parametrize("start", [True, False])
def test_last_state_stands_at_each_sequence_s_own_end(start):
    nu, Bb, _, x0 = system("bilinear")
    u, lengths = draw(2, 3, 50, seed=5), torch.tensor([50, 13])
    x0 = x0 if start else None
    got = diag_last_state(nu, Bb, u, x0, lengths)
    for b, L in enumerate(lengths.tolist()):
        close(got[b], diag_last_state(nu, Bb, u[b, :, :L], x0 if x0 is None else x0[b]))


def test_states_in_float32_stay_within_rounding():
    nu, Bb, C, x0 = system("zoh", n=32)
    u, L = draw(2, 3, 4096, seed=6), 4096
    close(diag_last_state(nu, Bb, u.float(), x0.to(C64)), diag_last_state(nu, Bb, u, x0), 5e-6)
    close(diag_response(nu, C, x0.to(C64), L), diag_response(nu, C, x0, L), 5e-6)
    assert diag_last_state(nu, Bb, u.float()).dtype == C64
    assert diag_response(nu, C, x0.to(C64), L).dtype == F32


@every_disc
def test_gradients(disc):
    nu, Bb, C, x0 = (x.requires_grad_() for x in system(disc, H=2, n=2))
    u, u_t = draw(2, 2, 5, seed=7).requires_grad_(), draw(2, 2, seed=8).requires_grad_()
    lengths = torch.tensor([5, 3])
    assert gradcheck(diag_step, (nu, Bb, C, u_t, x0))
    assert gradcheck(lambda nu, C, x: diag_response(nu, C, x, 5), (nu, C, x0))
    assert gradcheck(lambda *args: diag_last_state(*args, lengths), (nu, Bb, u, x0))


def test_bad_states_are_refused():
    nu, Bb, C, x = system("zoh")
    u_t, u = draw(2, 3), draw(2, 3, 9)
    with pytest.raises(TypeError, match=r"want u_t .*got torch\.int64"):
        diag_step(nu, Bb, C, u_t.long(), x)
    with pytest.raises(TypeError, match=r"want x as a torch\.Tensor, got list"):
        diag_step(nu, Bb, C, u_t, [0])
    with pytest.raises(ValueError, match=r"want all tensors on one device, got .*x on meta"):
        diag_step(nu, Bb, C, u_t, x.to("meta"))
    with pytest.raises(ValueError, match=r"want L >= 1, got 0"):
        diag_response(nu, C, x, 0)
    with pytest.raises(TypeError, match=r"want u .*got torch\.int64"):
        diag_last_state(nu, Bb, u.long())


NU, BB, WEIGHTS, STATE = system("zoh")
SIGNAL = draw(2, 3, 9)
NOW = SIGNAL[..., 0]
BAD = {
    "step: systems": (lambda: diag_step(NU, BB, WEIGHTS, NOW[:, :2], STATE), "axes that broadcast"),
    "step: width": (lambda: diag_step(NU, BB, WEIGHTS, NOW, STATE[..., 1:]), "one width n"),
    "step: scalars": (lambda: diag_step(NU, BB, WEIGHTS, NOW[0, 0], STATE[0, 0, 0]), "one width n"),
    "response: systems": (lambda: diag_response(NU, WEIGHTS, STATE[:, :2], 5), "axes that broad"),
    "response: width": (lambda: diag_response(NU, WEIGHTS, STATE[..., 1:], 5), "one width n"),
    "response: growing": (lambda: diag_response(NU + 9, WEIGHTS, STATE, 5), "Re nu <= 0, got"),
    "end: systems": (lambda: diag_last_state(NU, BB, SIGNAL[:, :2]), "axes that broadcast"),
    "end: width of x": (lambda: diag_last_state(NU, BB, SIGNAL, STATE[..., 1:]), "one width n"),
    "end: scalar x": (lambda: diag_last_state(NU, BB, SIGNAL, STATE[0, 0, 0]), "one width n"),
    "end: meta x": (lambda: diag_last_state(NU, BB, SIGNAL, STATE.to("meta")), "x on meta"),
    "end: empty u": (lambda: diag_last_state(NU, BB, SIGNAL[..., :0]), "length of u >= 1"),
    "end: scalar u": (lambda: diag_last_state(NU, BB, SIGNAL[0, 0, 0]), "length of u >= 1"),
    "end: no batch": (
        lambda: diag_last_state(NU, BB, SIGNAL[0], None, [9]),
        "want u .batch, H, L.",
    ),
}
BAD_TYPES = {
    "step: complex u": lambda: diag_step(NU, BB, WEIGHTS, NOW + 0j, STATE),
    "step: real nu": lambda: diag_step(NU.real, BB, WEIGHTS, NOW, STATE),
    "step: real x": lambda: diag_step(NU, BB, WEIGHTS, NOW, STATE.real),
    "response: real nu": lambda: diag_response(NU.real, WEIGHTS, STATE, 5),
    "response: real x": lambda: diag_response(NU, WEIGHTS, STATE.real, 5),
    "end: complex u": lambda: diag_last_state(NU, BB, SIGNAL + 0j),
    "end: array x": lambda: diag_last_state(NU, BB, SIGNAL, STATE.numpy()),
    "end: x is 0": lambda: diag_last_state(NU, BB, SIGNAL, 0),
    "end: real x": lambda: diag_last_state(NU, BB, SIGNAL, STATE.real),
}
BAD_LENGTHS = [
    ([0, 3], ValueError, r"from 1 to L = 9, got \[0, 3\]"),
    (torch.tensor([3, -1]), ValueError, r"from 1 to L = 9, got \[3, -1\]"),
    ([3, 10], ValueError, r"from 1 to L = 9, got \[3, 10\]"),
    ([3], ValueError, r"want lengths \(2,\), one a sequence, got \(1,\)"),
    ([1.0, 2.0], TypeError, r"want lengths as whole numbers, got torch\.float32"),
    (torch.tensor([True, True]), TypeError, r"want lengths as whole numbers, got torch\.bool"),
    ([None, None], TypeError, r"want lengths as whole numbers, got \[None, None\]"),
    (["a", "b"], TypeError, r"want lengths as whole numbers, got \['a', 'b'\]"),
    (torch.ones(2, dtype=torch.long, device="meta"), ValueError, "with values, got a meta tensor"),
]


@pytest.mark.parametrize("case", BAD)
def test_shapes_that_do_not_fit_are_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("case", BAD_TYPES)
def test_types_that_do_not_fit_are_refused(case):
    with pytest.raises(TypeError, match=r"want (nu|x|u)\b.* got"):
        BAD_TYPES[case]()


@pytest.mark.parametrize(("lengths", "error", "message"), BAD_LENGTHS)
def test_bad_lengths_are_refused(lengths, error, message):
    with pytest.raises(error, match=message):
        diag_last_state(NU, BB, SIGNAL, None, lengths)
    with pytest.raises(error, match=message):
        check_ends(lengths, 2, 9, torch.device("cpu"))


def test_lengths_may_be_any_whole_numbers():
    want = diag_last_state(NU, BB, SIGNAL, STATE, torch.tensor([4, 9]))
    unsigned = torch.tensor([4, 9]).to(torch.uint16)
    for lengths in ([4, 9], (4, 9), np.array([4, 9], dtype=np.uint16), unsigned):
        assert torch.equal(diag_last_state(NU, BB, SIGNAL, STATE, lengths), want)


# ------------------------------------------------------------------ two directions


def two_sided_naive(u: Tensor, K0: Tensor, K1: Tensor) -> Tensor:
    """The double sum, term by term."""
    y = torch.zeros_like(u)
    for t in range(u.shape[-1]):
        for s in range(u.shape[-1]):
            y[..., t] += (K0[..., t - s] if s <= t else K1[..., s - t - 1]) * u[..., s]
    return y


@pytest.mark.parametrize("L", [1, 2, 3, 37])
def test_two_sided_is_the_double_sum(L):
    u, K0, K1 = draw(2, 3, L), draw(3, L, seed=1), draw(3, L, seed=2)
    close(two_sided_conv(u, K0, K1), two_sided_naive(u, K0, K1))


@pytest.mark.parametrize("L", LENGTHS)
def test_two_sided_is_two_causal_filters(L):
    u, K0, K1 = draw(2, 3, L), draw(3, L + 4, seed=1), draw(3, L, seed=2)
    future = causal_conv(u.flip(-1), K1).flip(-1)  # counts the present too: shift it out
    want = causal_conv(u, K0)
    want[..., :-1] += future[..., 1:]
    close(two_sided_conv(u, K0, K1), want)


def test_two_sided_hears_the_present_once():
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    assert two_sided_conv(one, 3 * one, 5 * one) == 3 and two_sided_conv(one, zero, one) == 0
    impulse = torch.tensor([0.0, 0, 1, 0, 0], dtype=F64)
    y = two_sided_conv(impulse, torch.arange(1.0, 6, dtype=F64), -torch.arange(1.0, 6, dtype=F64))
    close(y, torch.tensor([-2.0, -1, 1, 2, 3], dtype=F64))


def test_two_sided_dtypes_gradients_and_refusals():
    u, K0, K1 = draw(2, 9), draw(2, 9, seed=1), draw(2, 9, seed=2)
    single = two_sided_conv(u.float(), K0.float(), K1.float())
    close(single.double(), two_sided_conv(u, K0, K1), 2e-6)
    half = two_sided_conv(u.bfloat16(), K0.float(), K1.float())
    assert single.dtype == F32 and half.dtype == torch.bfloat16
    assert gradcheck(two_sided_conv, [x.requires_grad_() for x in (u, K0, K1)])
    with pytest.raises(ValueError, match=r"want kernels as long as u, got 8 for 9"):
        two_sided_conv(u, K0, K1[:, :8])
    with pytest.raises(ValueError, match=r"want kernels as long as u, got 8 for 9"):
        two_sided_conv(u, K0[:, :8], K1)
    with pytest.raises(TypeError, match=r"want u and kernels real, got .*complex128"):
        two_sided_conv(u, K0, K1.to(C128))
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        two_sided_conv(u.long(), K0, K1)
    with pytest.raises(ValueError, match=r"want .*L, M >= 1, no axis empty; got"):
        two_sided_conv(u[:, :0], K0, K1)
    with pytest.raises(ValueError, match=r"want all tensors on one device"):
        two_sided_conv(u, K0, K1.to("meta"))
    for a, b in [(K0[:1], K1), (K0[0], K1), (K0.expand(3, 2, 9), K1)]:
        for pair in ((a, b), (b, a)):
            with pytest.raises(ValueError, match=r"same leading axes, got"):
                two_sided_conv(u, *pair)
