"""The fused convolution: run by `test_triton.py`, in the interpreter or on a GPU."""

import os
from functools import partial

import pytest
import torch
from torch import Tensor

from s4lite.init.diagonal import s4d_lin
from s4lite.ops.diag_state import diag_step
from s4lite.ops.recurrence import recur
from s4lite.ops.triton.chunks import fused_chunks
from s4lite.ops.vandermonde import log_discretize

DEVICE = os.environ.get("S4LITE_TEST_DEVICE", "cpu")
F32, F64, C128, BF16 = torch.float32, torch.float64, torch.complex128, torch.bfloat16
fused = partial(fused_chunks, backend="triton", precision="ieee")
twin = partial(fused_chunks, backend="torch")
SIZES = [
    # batch, H, L, n, how
    (1, 1, 1, 1, {}),
    (5, 3, 1, 33, {}),
    (1, 3, 2, 32, {}),
    (5, 1, 2, 1, {"T": 16, "segments": 9}),
    (1, 1, 99, 33, {"T": 32}),
    (5, 3, 99, 4, {"T": 16, "segments": 3}),
    (5, 3, 99, 4, {"T": 128}),
    (1, 3, 1023, 32, {}),
    (5, 1, 1023, 33, {"segments": 4}),
    (20, 1, 128, 8, {"T": 16, "segments": 2}),  # several tiles of rows a program
    (3, 2, 257, 3, {"T": 16, "segments": 16}),  # a last segment of one chunk
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(DEVICE)


def system(H: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    dt = torch.exp(-7 + 5 * torch.rand(H, dtype=F64, generator=torch.Generator().manual_seed(0)))
    nu, phi = log_discretize(s4d_lin(2 * n).expand(H, n), dt)
    return nu.to(DEVICE), phi.to(DEVICE), draw(H, n, dtype=C128)


def inputs(batch: int, H: int, L: int, n: int, dtype: torch.dtype = F32) -> list[Tensor]:
    """nu, Bb, C, u, x, D."""
    u = draw(batch, H, L, seed=1).to(dtype)
    return [*system(H, n), u, draw(batch, H, n, seed=2, dtype=C128), draw(H, seed=3)]


def both(function, args: list[Tensor], use_state: bool = True) -> list[Tensor]:
    """y, the last state, and the gradients of a random scalar by all arguments."""
    args = [z.detach().clone().requires_grad_() for z in args]
    y, x = function(*args[:5], D=args[5])
    loss = (y * draw(*y.shape, seed=4)).sum()
    if use_state:
        loss = loss + (x * draw(*x.shape, seed=5, dtype=C128).conj()).real.sum()
    return [y.detach(), x.detach(), *torch.autograd.grad(loss, args)]


def worst(got: list[Tensor], want: list[Tensor]) -> float:
    assert [z.shape for z in got] == [z.shape for z in want]
    gaps = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, want, strict=True)]
    return max(gap.item() for gap in gaps)


def in_double(args: list[Tensor]) -> list[Tensor]:
    return [*args[:3], args[3].double(), *args[4:]]


@every_size
def test_output_state_and_gradients_are_those_of_the_convolution(size):
    *shape, how = size
    args = inputs(*shape)
    got = both(partial(fused, **how), args)
    assert got[0].dtype == F32 and got[1].dtype == torch.complex64
    assert worst(got, both(twin, in_double(args))) < 2e-6


@pytest.mark.parametrize("segments", [1, 5])
def test_is_the_recurrence_as_written(segments):
    nu, Bb, C, u, x, D = inputs(2, 1, 99, 3)
    y, last = fused(nu, Bb, C, u, x, D=D, T=16, segments=segments)
    Ab = torch.diag_embed(nu[0].exp())
    for b in range(2):
        want, end = recur(Ab, Bb[0], 2 * C[0], u[b, 0].to(C128), x[b, 0])
        assert (y[b, 0] - want.real - D * u[b, 0]).abs().max() < 1e-6 * want.abs().max()
        assert (last[b, 0] - end).abs().max() < 1e-6 * end.abs().max()


def test_gradients_where_nobody_asks_for_the_state():
    args = inputs(3, 2, 130, 5)
    got, want = (both(f, a, False) for f, a in ((fused, args), (twin, in_double(args))))
    assert worst(got, want) < 2e-6


def test_a_cut_signal_is_the_whole_signal():
    nu, Bb, C, u, _, _ = inputs(2, 3, 200, 5)
    whole, end = fused(nu, Bb, C, u, T=32)
    first, x = fused(nu, Bb, C, u[..., :77], T=16)
    rest, x = fused(nu, Bb, C, u[..., 77:199], x, T=64)
    y_t, x = diag_step(nu, Bb, C, u[..., 199], x)
    y = torch.cat([first, rest, y_t[..., None]], -1)
    assert (y - whole).abs().max() < 2e-6 * whole.abs().max()
    assert (x - end).abs().max() < 2e-6 * end.abs().max()


def test_causal_and_linear():
    nu, Bb, C, u, _, _ = inputs(1, 2, 150, 4)
    y = fused(nu, Bb, C, u, T=16, segments=3)[0]
    late = u.clone()
    late[..., 100:] += 1
    assert torch.equal(fused(nu, Bb, C, late, T=16, segments=3)[0][..., :100], y[..., :100])
    assert torch.allclose(fused(nu, Bb, C, -2 * u, T=16, segments=3)[0], -2 * y)


def test_leading_axes_broadcast_like_the_twin():
    nu, Bb, C = system(3, 4)
    u, D = draw(2, 5, 3, 40).float(), draw(3)
    y, x = fused(nu[0], Bb, C[0], u, D=D, T=16)
    want, end = twin(nu[0], Bb, C[0], u.double(), D=D)
    assert y.shape == (2, 5, 3, 40) and x.shape == (2, 5, 3, 4)
    assert worst([y, x], [want, end]) < 2e-6
    y, x = fused(nu[0], Bb[0], C[0], u[0, 0, 0], T=16)
    assert y.shape == (40,) and x.shape == (4,)
    strange = u.transpose(-1, -2).contiguous().transpose(-1, -2)  # time is not the fast axis
    assert torch.equal(fused(nu, Bb, C, strange, T=16)[0], fused(nu, Bb, C, u, T=16)[0])


@pytest.mark.parametrize(("L", "n", "segments"), [(1023, 32, 1), (1023, 32, 4), (99, 33, None)])
def test_bfloat16_is_within_twice_the_rounding_of_the_output(L, n, segments):
    args = inputs(5, 3, L, n, BF16)
    for keep in (5, 4):  # with and without an initial state
        args[4] = args[4] if keep == 5 else torch.zeros_like(args[4])
        y = fused(*args[:5], D=args[5], segments=segments)[0]
        exact = twin(*in_double(args)[:5], D=args[5])[0]
        rms = [(z.double() - exact).square().mean((0, 2)).sqrt() for z in (y, exact.to(BF16))]
        assert y.dtype == BF16 and (rms[0] < 2 * rms[1]).all()


def test_bfloat16_gradients():
    args = inputs(5, 2, 99, 8, BF16)
    got, want = both(fused, args), both(twin, in_double(args))
    assert got[2 + 3].dtype == BF16
    assert worst(got, want) < 2e-2


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter multiplies in float32")
@pytest.mark.parametrize(("precision", "tol"), [("tf32", 1e-2), ("tf32x3", 1e-5)])
def test_precision_of_float32(precision, tol):
    args = inputs(20, 3, 1000, 32)
    got = both(partial(fused_chunks, backend="triton", precision=precision), args)
    assert worst(got, both(twin, in_double(args))) < tol


def test_two_runs_give_the_same_bits():
    args = inputs(20, 2, 130, 5)
    assert all(map(torch.equal, both(fused, args), both(fused, args)))


def test_what_cannot_be_served_is_refused_with_the_reason():
    nu, Bb, C, u, _, _ = inputs(1, 2, 20, 3)
    with pytest.raises(ValueError, match=r"cannot serve this call: u is torch\.float64"):
        fused(nu, Bb, C, u.double())
    with pytest.raises(ValueError, match="200 modes, want at most 128"):
        fused(*system(1, 200), u[:, :1])
    with pytest.raises(ValueError, match=r"torch\.func"):
        torch.func.vmap(lambda v: fused(nu, Bb, C, v)[0])(u)
    y, _ = fused(nu, Bb, C.requires_grad_(), u)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y.sum(), C, create_graph=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"T": 48}, ValueError, "want T 16, 32, 64 or 128, got 48"),
        ({"precision": "fp8"}, ValueError, 'want precision "tf32x3"'),
        ({"segments": 0}, ValueError, "want segments >= 1"),
        ({"backend": "cuda"}, ValueError, 'want backend "auto", "torch" or "triton"'),
        ({"u": torch.zeros(2, 0)}, ValueError, "the length of u"),
        ({"u": torch.zeros(3, 7)}, ValueError, "leading axes that broadcast"),
        ({"u": torch.zeros(2, 7, dtype=C128)}, TypeError, "want u and D real"),
        ({"x": torch.zeros(2, 3)}, TypeError, "want x complex"),
        ({"D": torch.zeros(3)}, ValueError, "leading axes that broadcast"),
    ],
)
def test_bad_input(change, error, message):
    nu, Bb, C = (z.cpu() for z in system(2, 3))
    call = {"nu": nu, "Bb": Bb, "C": C, "u": torch.zeros(2, 7)} | change
    with pytest.raises(error, match=message):
        fused_chunks(**call)
