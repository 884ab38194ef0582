"""LSSL: one layer by three roads, learned to the last number, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import Tensor
from walking import close, draw, walk

from s4lite.init.hippo import hippo
from s4lite.nn.lssl import LSSL, LSSLKernel, initial_matrices
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.ops.conv import causal_conv_naive, kernel_naive
from s4lite.ops.discretize import bilinear

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
LINEAR = {"activation": None, "mixer": None}

every_init = pytest.mark.parametrize("init", ["legs", "legt", "lmu", "lagt", "fout"])


def make(d_model: int = 4, d_state: int = 8, *, seed: int = 0, **options) -> LSSL:
    torch.manual_seed(seed)
    return LSSL(d_model, d_state, **{"dtype": F64, **options}).eval()


def naive_kernel(kernel: LSSLKernel, L: int, rate: float = 1.0) -> Tensor:
    """C Ab^l Bb by matrix_power, from the stored numbers: (channels, H, L)."""
    p, K = {name: x.detach() for name, x in kernel.named_parameters()}, []
    for h in range(kernel.d_model):
        A, B = p["A"][h % len(p["A"])], p["B"][h % len(p["B"])]
        Ab, Bb = bilinear(A, B[:, None], p["log_dt"][h].exp().item() * rate)
        powers = [torch.linalg.matrix_power(Ab, lag) @ Bb[:, 0] for lag in range(L)]
        K.append(p["C"][:, h] @ torch.stack(powers, -1))
    return torch.stack(K, 1)


# ------------------------------------------------------------------ what it computes


@every_init
@pytest.mark.parametrize("n_ssm", [1, 2, 4])
def test_kernel_is_matrix_powers(init, n_ssm):
    kernel = make(init=init, n_ssm=n_ssm, d_state=9, bidirectional=True).kernel
    with torch.no_grad():
        _ = kernel.A.add_(0.1 * draw(*kernel.A.shape)), kernel.B.add_(draw(*kernel.B.shape))
    for L in (1, 2, 99):
        for rate in (1.0, 2.0, 0.3):
            close(kernel(L, rate), naive_kernel(kernel, L, rate), 1e-10)


@pytest.mark.parametrize(("N", "L"), [(1, 1), (4, 2), (64, 99), (16, 1023)])
def test_convolution_recurrence_and_matrix_powers(N, L):
    layer, u = make(3, N, **LINEAR), draw(2, L, 3)
    K = naive_kernel(layer.kernel, L)[0]
    want = causal_conv_naive(u.mT, K).mT + layer.D.detach() * u
    with torch.no_grad():
        y, state = layer(u, return_state=True)
    y_walk, state_walk = walk(layer, u)
    close(y, want, 1e-10)
    close(y_walk, want, 1e-10)
    close(state_walk, state, 1e-10)


def test_kernel_agrees_with_the_judge():
    kernel = make(2, 16).kernel
    Ab, Bb, C = (x.detach() for x in kernel.system())
    close(kernel(300)[0], kernel_naive(Ab, Bb, C[0], 300), 1e-12)


def test_both_ways():
    layer, u = make(bidirectional=True, **LINEAR), draw(2, 23, 4)
    K, v = naive_kernel(layer.kernel, 23), u.mT
    y = causal_conv_naive(v, K[0]) + layer.D.detach()[:, None] * v
    y[..., :-1] += causal_conv_naive(v.flip(-1), K[1]).flip(-1)[..., 1:]
    close(layer(u), y.mT, 1e-10)
    with pytest.raises(ValueError, match="want a causal layer"):
        layer.initial_state()


@pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-10), (F32, 2e-5)])
@pytest.mark.parametrize("init", ["legs", "legt"])
def test_steps_pieces_and_other_rates(dtype, tol, init):
    layer, u = make(init=init, d_state=32, dtype=dtype), draw(2, 200, 4, dtype=dtype)
    for rate in (1.0, 2.0):
        with torch.no_grad():
            y, state = layer(u, rate=rate, return_state=True)
            a, middle = layer(u[:, :77], rate=rate, return_state=True)
            b, end = layer(u[:, 77:], middle, rate=rate, return_state=True)
        y_walk, state_walk = walk(layer, u, rate=rate)
        close(y_walk, y, tol)
        close(state_walk, state, tol)
        close(torch.cat([a, b], 1), y, tol)
        close(end, state, tol)


def test_padding_changes_nothing():
    layer, u, lengths = make(), draw(3, 30, 4), [30, 1, 12]
    keep = (torch.arange(30) < torch.tensor(lengths)[:, None])[..., None]
    start = draw(3, 4, 8, seed=2)
    padded = u.where(keep, math.nan)
    y, state = layer(padded, start, lengths=lengths, return_state=True)
    for b, n in enumerate(lengths):
        y_b, state_b = layer(u[b : b + 1, :n], start[b : b + 1], return_state=True)
        close(y[b, :n], y_b[0])
        close(state[b], state_b[0])
        assert (y[b, n:] == 0).all()


def test_everything_is_learned():
    kernel = make(2, 3).kernel
    names, values = zip(*kernel.named_parameters(), strict=True)
    assert set(names) == {"A", "B", "C", "log_dt"}

    def run(*weights: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(kernel, named, (7,))

    leaves = [x.detach().clone().requires_grad_() for x in values]
    assert torch.autograd.gradcheck(run, leaves)


def test_gradients_flow_through_states_and_are_causal():
    layer, u = make(), draw(1, 20, 4).requires_grad_()
    _, state = layer(u[:, :12], return_state=True)
    cut = torch.autograd.grad(layer(u[:, 12:], state)[0, 3, 0], u)[0]
    whole = torch.autograd.grad(layer(u)[0, 15, 0], u)[0]
    close(cut, whole, 1e-10)
    assert whole[:, :12].abs().max() > 1e-6 and whole[:, 16:].abs().max() < 1e-14


def test_trained_out_of_stability():
    """A shifted by 1.1: the slowest pole is +0.1, and |K| doubles every ln 2 / (0.1 dt) steps."""
    A, B = hippo("legs", 8)
    layer = make(1, init=(A + 1.1 * torch.eye(8), B), dt_min=0.01, dt_max=0.01)
    K = layer.kernel(12000)[0, 0].detach().abs()
    assert K[:200].max() < 10
    assert abs((K[-1] / K[-1 - 693]).item() - 2) < 0.01
    still = make(1, init=(A.mT, B), dt_min=0.01, dt_max=0.01)
    assert torch.linalg.matrix_norm(still.kernel.system()[0][0], 2) <= 1 + 1e-12


# ------------------------------------------------------------------ how it starts


@every_init
def test_starts_where_it_says(init):
    A, B = hippo(init, 8)
    kernel = make(init=init, n_ssm=2, dt_min=0.01, dt_max=0.02).kernel
    assert torch.equal(kernel.A, A.expand(2, 8, 8)) and torch.equal(kernel.B, B.expand(2, 8))
    assert kernel.slow == ("log_dt", "A", "B")
    dt = kernel.log_dt.exp()
    assert (dt >= 0.0099).all() and (dt <= 0.0201).all()
    assert kernel.C.shape == (1, 4, 8)


def test_own_matrices():
    A, B = draw(8, 8).float(), draw(8, seed=2).float()
    got = initial_matrices((A, B), 8)
    assert torch.equal(got[0], A.double()) and torch.equal(got[1], B.double())
    assert torch.equal(make(init=(A, B)).kernel.A[0], A.double())


def test_defaults():
    layer = LSSL(6)
    assert layer.kernel.A.shape == (1, 64, 64) and layer.initial_state().shape == (1, 6, 64)
    assert layer.kernel(7).shape == (1, 6, 7) and layer(torch.zeros(1, 5, 6)).shape == (1, 5, 6)
    assert all(p.dtype == F32 for p in layer.parameters())


# ------------------------------------------------------------------ living with others


def test_in_blocks_stacks_and_models():
    torch.manual_seed(0)
    like, u = {"layer": LSSL, "d_state": 4, "dtype": F64}, draw(2, 15, 6)
    for net in (S4Block(6, **like), Stack(6, 2, **like)):
        net.eval()
        close(net(u), walk(net, u)[0], 1e-10)
    model, x = SequenceModel(1, 3, 6, 2, **like).eval(), draw(2, 15, 1)
    state = model.initial_state(2)
    for x_t in x.unbind(1):
        y, state = model.step(x_t, state)
    close(y, model(x), 1e-10)


def test_loading_is_all_or_nothing():
    layer = make()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    for value in (torch.full((4,), 800.0), torch.full((4,), math.nan), torch.zeros(5)):
        faulty = {k: v + 1 for k, v in before.items()} | {"kernel.log_dt": value}
        with pytest.raises(ValueError, match="nothing was loaded"):
            layer.load_state_dict(faulty)
        assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_compile():
    layer, u = make(dtype=F32), draw(2, 12, 4, dtype=F32)
    options = {"fullgraph": True, "backend": "aot_eager"}
    compiled, step = torch.compile(layer, **options), torch.compile(layer.step, **options)
    close(compiled(u), layer(u), 1e-6)
    want, end = layer(u, return_state=True)
    got, state = compiled(u, layer.initial_state(2), return_state=True)
    close(got, want, 1e-6)
    close(state, end, 1e-6)
    close(step(u[:, 0], end)[0], layer.step(u[:, 0], end)[0], 1e-6)


def test_autocast_and_short_dtypes():
    layer, u = make(dtype=F32), draw(2, 40, 4, dtype=F32)
    y, K = layer(u), layer.kernel(40)
    with torch.autocast("cpu", dtype=BF16):
        assert torch.equal(layer.kernel(40), K)
        close(layer(u).float(), y, 0.05)
    short = copy.deepcopy(layer).bfloat16()
    y_short, state = short(u.bfloat16(), return_state=True)
    assert y_short.dtype == BF16 and state.dtype == F32
    close(y_short.float(), y, 0.2)


# ------------------------------------------------------------------ bad input

U, EYE = draw(2, 10, 4), torch.eye(8, dtype=F64)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"init": "hippo"}, ValueError, "legs.*legt.*lmu.*lagt.*fout"),
        ({"init": EYE}, ValueError, "want init as the name of a measure or a pair"),
        ({"init": (EYE, torch.ones(7))}, ValueError, r"want real A \(8, 8\) and B \(8,\)"),
        ({"init": (EYE * 1j, torch.ones(8))}, ValueError, "want real A"),
        ({"init": (EYE.to("meta"), torch.ones(8, device="meta"))}, ValueError, "on meta"),
        ({"init": (EYE.long(), torch.ones(8))}, TypeError, "want A of a floating"),
        ({"init": (EYE * math.nan, torch.ones(8))}, ValueError, "want A and B finite"),
        ({"init": (EYE * 1e30, torch.ones(8)), "dtype": torch.float16}, ValueError, "can hold"),
        ({"d_state": 0}, ValueError, "want d_state >= 1"),
        ({"d_state": 4.0}, TypeError, "want d_state as an int"),
        ({"d_model": 0}, ValueError, "want d_model >= 1"),
        ({"n_ssm": 3}, ValueError, "want n_ssm to divide d_model"),
        ({"dt_min": 0.0}, ValueError, "want dt_min finite and > 0"),
        ({"dt_min": 0.2, "dt_max": 0.1}, ValueError, "want dt_min <= dt_max"),
        ({"bidirectional": 1}, TypeError, "want bidirectional as a bool"),
        ({"activation": "tanh"}, ValueError, "want activation one of"),
        ({"mixer": "conv"}, ValueError, "want mixer one of"),
        ({"dropout": -0.1}, ValueError, "want dropout from 0 to 1"),
        ({"dtype": torch.int64}, TypeError, "want a floating dtype"),
    ],
)
def test_refused_arguments(options, error, said):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(error, match=said):
        make(**options)
    assert torch.equal(torch.get_rng_state(), before)  # refused before the first draw


def test_uneven_samples_are_refused():
    layer, dt = make(), torch.ones(10, dtype=F64)
    for call in (
        lambda: layer(U, dt=dt),
        lambda: layer.step(U[:, 0], layer.initial_state(2), dt=1.0),
    ):
        with pytest.raises(ValueError, match="want a kernel with `scan` for dt, got LSSLKernel"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda layer: layer(U[0]), ValueError, r"want u \(batch, L, d_model\)"),
        (lambda layer: layer(U[..., :2]), ValueError, "none empty, the last 4"),
        (lambda layer: layer(U.float()), TypeError, "want u of the layer's dtype"),
        (lambda layer: layer(U, rate=-1.0), ValueError, "want rate finite and > 0"),
        (lambda layer: layer(U, lengths=[3, 11]), ValueError, "want lengths from 1 to L = 10"),
        (lambda layer: layer(U, layer.initial_state(3)), ValueError, "want state"),
        (lambda layer: layer(U, torch.zeros(2, 4, 8) * 1j), ValueError, "want state torch.float64"),
        (lambda layer: layer.step(U[:, 0], None), TypeError, "want state as a torch.Tensor"),
        (lambda layer: layer.kernel(0), ValueError, "want L >= 1"),
    ],
)
def test_refused_input(call, error, said):
    with pytest.raises(error, match=said):
        call(make())
