"""LMU and ParallelLMU: their equations, their views, what they keep and what they refuse."""

import copy
import io
import math

import pytest
import torch
from torch import Tensor
from walking import close, draw, walk

from s4lite.init.hippo import hippo
from s4lite.nn.legendre import LegendreMemory, LegendreTable, lmu_system
from s4lite.nn.lmu import LMU, ParallelLMU
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.ops.discretize import zoh

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
LAYERS = {"lmu": LMU, "parallel": ParallelLMU}

both = pytest.mark.parametrize("name", LAYERS)


def make(name: str, d: int = 3, N: int = 8, theta: float = 20.0, *, seed: int = 0, **options):
    """A layer in which every weight is at work, e_m too."""
    torch.manual_seed(seed)
    layer = LAYERS[name](d, N, theta, **{"dtype": F64, **options}).eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=0.3)
    return layer


# ------------------------------------------------------------------ the memory


@pytest.mark.parametrize("N", [1, 2, 9, 40])
@pytest.mark.parametrize("theta", [0.5, 7.0, 1e5])
def test_system_is_the_hold_of_the_lmu_matrices(N, theta):
    A, B = hippo("lmu", N, window=1.0)
    Ab, Bb = lmu_system(N, theta)
    close(Ab, torch.linalg.matrix_exp(A / theta), 1e-9 if theta < 1 else 1e-11)
    rest = torch.eye(N, dtype=F64)[0]
    assert (Ab @ rest + Bb - rest).abs().max() < 1e-10  # a constant is remembered as a constant
    close(Bb, zoh(A / theta, B[:, None] / theta, 1.0)[1][:, 0], 1e-9)


def test_two_steps_with_the_input_held_are_one_at_rate_two():
    Ab, Bb = lmu_system(8, 30.0)
    Ab2, Bb2 = lmu_system(8, 30.0, 2.0)
    close(Ab2, Ab @ Ab)
    close(Bb2, Ab @ Bb + Bb)
    close(Ab2, lmu_system(8, 15.0)[0])


def test_memory_is_float64_whatever_happens_to_the_layer():
    Ab, Bb = lmu_system(8, 20.0)
    for layer in (
        make("parallel", length=10).bfloat16(),
        make("parallel", length=10).float().double(),
        copy.deepcopy(make("lmu")).half(),
        ParallelLMU(3, 8, 20.0, length=10, device="meta").to_empty(device="cpu"),
    ):
        assert torch.equal(layer.memory.Ab, Ab) and torch.equal(layer.memory.Bb, Bb)
    assert make("parallel", length=10).bfloat16().memory.table.dtype == F32
    assert make("parallel", length=10).float().double().memory.table.dtype == F64
    assert not any("memory" in key for key in make("parallel", length=10).state_dict())


def test_table_changes_nothing():
    v, m = draw(2, 3, 50), draw(2, 3, 8, seed=2)
    want = LegendreTable(8, 20.0, dtype=F64)(v, m)
    for length in (1, 49, 50, 99):
        close(LegendreTable(8, 20.0, length, dtype=F64)(v, m), want)


@pytest.mark.parametrize("cycles", [1, 3, 6])
def test_the_far_end_recalls_the_past(cycles):
    """Read with P_n(1) = 1, a memory of d + 1/2 samples says what came d samples ago."""
    d, L = 400, 2400
    u = torch.cos(2 * math.pi * cycles * torch.arange(L, dtype=F64) / d + 0.3)
    y = LegendreTable(32, d + 0.5, dtype=F64)(u).sum(0)
    assert (y[3 * d :] - u[2 * d : -d]).abs().max() < 2e-3


# ------------------------------------------------------------------ what they compute


def test_lmu_is_its_equations():
    layer, x = make("lmu"), draw(60, 3)
    A, B = hippo("lmu", 8, window=20.0)
    Ab, Bb = zoh(A, B[:, None], 1.0)
    h, m, want = torch.zeros(3, dtype=F64), torch.zeros(8, dtype=F64), []
    with torch.no_grad():
        for x_t in x:
            u = layer.e_x @ x_t + layer.e_h @ h + layer.e_m @ m
            m = Ab @ m + Bb[:, 0] * u
            h = torch.tanh(layer.W_x @ x_t + layer.W_h @ h + layer.W_m @ m)
            want.append(h)
        y, state = layer(x[None], return_state=True)
    close(y[0], torch.stack(want))
    close(state[0], torch.cat([h, m]))


def test_published_start():
    layer = LMU(400, 100, 50.0)
    assert (layer.e_m == 0).all()
    bound = math.sqrt(3 / 400)
    for e in (layer.e_x, layer.e_h):
        assert 0.95 * bound < e.abs().max() <= bound
    for W, width in ((layer.W_x, 400), (layer.W_h, 400), (layer.W_m, 100)):
        assert W.shape == (400, width)
        assert abs(W.var() / (2 / (400 + width)) - 1) < 0.05
    assert {n for n, _ in layer.named_parameters()} == {"e_x", "e_h", "e_m", "W_x", "W_h", "W_m"}


@pytest.mark.parametrize("L", [1, 2, 99, 1023])
@pytest.mark.parametrize("q", [1, 3])
def test_parallel_is_the_recurrent_linear_lmu(L, q):
    layer, x = make("parallel", n_memory=q, length=64, activation="relu"), draw(L, 3)
    Ab, Bb = lmu_system(8, 20.0)
    m, want = torch.zeros(q, 8, dtype=F64), []
    with torch.no_grad():
        for x_t in x:
            m = m @ Ab.mT + (layer.encode(x_t))[:, None] * Bb
            want.append(torch.relu(layer.read(torch.cat([m.flatten(), x_t]))))
        y, state = layer(x[None], return_state=True)
    close(y[0], torch.stack(want), 1e-10)
    close(state[0], m, 1e-10)


@both
@pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-10), (F32, 2e-5)])
@pytest.mark.parametrize("L", [1, 2, 99, 500])
def test_steps_and_pieces(name, dtype, tol, L):
    layer, u = make(name, dtype=dtype), draw(2, L, 3, dtype=dtype)
    with torch.no_grad():
        y, state = layer(u, return_state=True)
        y_walk, state_walk = walk(layer, u)
        close(y_walk, y, tol)
        close(state_walk, state, tol)
        if L > 1:
            a, middle = layer(u[:, : L // 3 + 1], return_state=True)
            b, end = layer(u[:, L // 3 + 1 :], middle, return_state=True)
            close(torch.cat([a, b], 1), y, tol)
            close(end, state, tol)


@both
def test_padding_changes_nothing(name):
    layer, u, lengths = make(name), draw(3, 30, 3), [30, 1, 12]
    keep = (torch.arange(30) < torch.tensor(lengths)[:, None])[..., None]
    y, state = layer(u.where(keep, math.nan), lengths=lengths, return_state=True)
    y.square().sum().backward()
    got = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    for b, n in enumerate(lengths):
        y_b, state_b = layer(u[b : b + 1, :n], return_state=True)
        close(y[b, :n], y_b[0])
        close(state[b], state_b[0])
        assert (y[b, n:] == 0).all()
        y_b.square().sum().backward()
    for p, g in zip(layer.parameters(), got, strict=True):
        close(g, p.grad)


def test_last_is_the_last():
    layer, u, start = make("parallel", n_memory=2), draw(3, 30, 3), draw(3, 2, 8, seed=2)
    for options in ({}, {"rate": 2.0}, {"lengths": [30, 1, 12]}):
        y, state = layer(u, start, return_state=True, **options)
        y_last, end = layer.last(u, start, **options)
        ends = options.get("lengths", [30] * 3)
        close(y_last, torch.stack([y[b, n - 1] for b, n in enumerate(ends)]))
        close(end, state)


def test_rate_stretches_the_window_of_the_parallel_one():
    layer, u = make("parallel", theta=20.0, length=60), draw(2, 30, 3)
    wide = make("parallel", theta=10.0)
    close(layer(u, rate=2.0), wide(u))
    close(walk(layer, u, rate=2.0)[0], wide(u))
    close(layer(u, rate=torch.tensor(2.0)), wide(u))
    held = u.repeat_interleave(2, 1)
    close(layer(held)[:, 1::2], layer(u, rate=2.0))


@both
def test_gradients_flow_through_states_and_are_causal(name):
    layer, u = make(name), draw(1, 20, 3).requires_grad_()
    _, state = layer(u[:, :12], return_state=True)
    cut = torch.autograd.grad(layer(u[:, 12:], state)[0, 3, 0], u)[0]
    whole = torch.autograd.grad(layer(u)[0, 15, 0], u)[0]
    close(cut, whole)
    assert whole[:, :12].abs().max() > 1e-6 and whole[:, 16:].abs().max() < 1e-14


@both
def test_gradcheck(name):
    layer = make(name, 2, 3, 5.0)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(u: Tensor, state: Tensor, *weights: Tensor):
        named = dict(zip(names, weights, strict=True))
        run = {"state": state, "return_state": True}
        return torch.func.functional_call(layer, named, (u,), run)

    u, state = draw(2, 5, 2), draw(*layer.initial_state(2).shape, seed=3)
    leaves = [x.detach().clone().requires_grad_() for x in (u, state, *values)]
    assert torch.autograd.gradcheck(run, leaves)


# ------------------------------------------------------------------ living with others


@both
def test_in_blocks_stacks_and_models(name):
    torch.manual_seed(0)
    like = {"layer": LAYERS[name], "d_state": 4, "theta": 9.0, "dtype": F64}
    u = draw(2, 15, 6)
    for net in (S4Block(6, **like), Stack(6, 2, **like)):
        net.eval()
        y, _ = walk(net, u)
        close(net(u), y, 1e-10)
    model = SequenceModel(1, 3, 6, 2, pool="last", **like).eval()
    x = draw(2, 15, 1)
    state = model.initial_state(2)
    for x_t in x.unbind(1):
        y, state = model.step(x_t, state)
    close(y, model(x), 1e-10)
    assert model(x, lengths=[15, 4]).shape == (2, 3)


@both
def test_dropout_is_one_mask_for_all_times(name):
    layer = make(name, d=64, dropout=0.5).train()
    y, state = layer(draw(2, 9, 64), return_state=True)
    clean, want = layer.eval()(draw(2, 9, 64), return_state=True)
    if name == "lmu":
        gone = (y == 0).all(1)
        assert 10 < gone.sum() < 118 and not gone.all()
        close(y, torch.where(gone[:, None], 0.0, 2 * clean))
    close(state, want)


@both
def test_loading_is_all_or_nothing(name):
    layer = make(name)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    key = next(reversed(before))
    for value in (torch.full_like(before[key], math.nan), torch.zeros(99, dtype=F64)):
        faulty = {k: v + 1 for k, v in before.items()} | {key: value}
        with pytest.raises(ValueError, match="nothing was loaded"):
            layer.load_state_dict(faulty)
        assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    other = make(name, seed=5)
    other.load_state_dict(before)
    assert torch.equal(other(draw(2, 9, 3)), layer(draw(2, 9, 3)))


@both
def test_forward_changes_nothing_and_layers_travel(name):
    layer, u = make(name), draw(2, 9, 3)
    before = [b.clone() for b in (*layer.parameters(), *layer.buffers())]
    y, state = layer(u, return_state=True)
    layer.step(u[:, 0], state)
    after = [*layer.parameters(), *layer.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(copy.deepcopy(layer)(u), y)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(u), y)


@both
def test_compile(name):
    layer, u = make(name, dtype=F32), draw(2, 12, 3, dtype=F32)
    options = {"fullgraph": True, "backend": "aot_eager"}
    compiled, step = torch.compile(layer, **options), torch.compile(layer.step, **options)
    close(compiled(u), layer(u), 1e-6)
    want, end = layer(u, return_state=True)
    got, state = compiled(u, layer.initial_state(2), return_state=True)
    close(got, want, 1e-6)
    close(state, end, 1e-6)
    close(step(u[:, 0], end)[0], layer.step(u[:, 0], end)[0], 1e-6)


@both
def test_autocast_and_short_dtypes(name):
    layer, u = make(name, dtype=F32), draw(2, 40, 3, dtype=F32)
    y, state = layer(u, return_state=True)
    with torch.autocast("cpu", dtype=BF16):
        got, end = layer(u, return_state=True)
    assert end.dtype == F32
    close(got.float(), y, 0.05)
    close(end, state, 0.05)
    short = copy.deepcopy(layer).bfloat16()
    y_short, state = short(u.bfloat16(), return_state=True)
    assert y_short.dtype == BF16 and state.dtype == F32
    close(y_short.float(), y, 0.1)


# ------------------------------------------------------------------ bad input

U = draw(2, 10, 3)


@both
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"theta": 0.0}, ValueError, "want theta finite and > 0, got 0.0"),
        ({"theta": -3.0}, ValueError, "want theta finite and > 0, got -3.0"),
        ({"theta": math.nan}, ValueError, "want theta finite and > 0, got nan"),
        ({"theta": math.inf}, ValueError, "want theta finite and > 0, got inf"),
        ({"theta": None}, TypeError, "want theta as a number"),
        ({"theta": torch.tensor(3.0)}, TypeError, "want theta as a number, got Tensor"),
        ({"N": 0}, ValueError, "want N >= 1, got 0"),
        ({"N": 2.0}, TypeError, "want N as an int"),
        ({"d": 0}, ValueError, "want d_model >= 1, got 0"),
        ({"dropout": 1.5}, ValueError, "want dropout from 0 to 1"),
        ({"dtype": torch.int64}, TypeError, "want a floating dtype"),
    ],
)
def test_refused_arguments(name, options, error, said):
    with pytest.raises(error, match=said):
        make(name, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_memory": 0}, "want n_memory >= 1"),
        ({"length": -1}, "want length >= 1"),
        ({"activation": "tanh"}, "want activation one of"),
        ({"mixer": "conv"}, "want mixer one of"),
    ],
)
def test_refused_arguments_of_the_parallel_one(options, said):
    with pytest.raises(ValueError, match=said):
        make("parallel", **options)


@both
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda layer: layer(U[0]), ValueError, r"want u \(batch, L, d_model\)"),
        (lambda layer: layer(U[..., :2]), ValueError, "none empty, the last 3"),
        (lambda layer: layer(U[:, :0]), ValueError, "none empty"),
        (lambda layer: layer(U.float()), TypeError, "want u of the layer's dtype"),
        (lambda layer: layer(U, lengths=[3, 11]), ValueError, "want lengths from 1 to L = 10"),
        (lambda layer: layer(U, layer.initial_state(3)), ValueError, "want state"),
        (lambda layer: layer(U, layer.initial_state(2).float()), ValueError, "want state"),
        (lambda layer: layer(U, rate=0.0), ValueError, "want rate finite and > 0"),
        (lambda layer: layer(U, rate=math.nan), ValueError, "want rate finite and > 0"),
        (lambda layer: layer.step(U, layer.initial_state(2)), ValueError, r"want u \(batch, d"),
        (lambda layer: layer.step(U[:, 0], None), TypeError, "want state as a torch.Tensor"),
        (lambda layer: layer.initial_state(0), ValueError, "want batch >= 1"),
    ],
)
def test_refused_input(name, call, error, said):
    with pytest.raises(error, match=said):
        call(make(name))


@pytest.mark.parametrize("rate", [2.0, 0.5, torch.tensor(2.0)])
def test_lmu_refuses_other_rates(rate):
    layer = make("lmu")
    with pytest.raises(ValueError, match=r"want rate 1.0 \(an LMU's hidden units have no clock\)"):
        layer(U, rate=rate)
    with pytest.raises(ValueError, match=r"want rate 1.0"):
        layer.step(U[:, 0], layer.initial_state(2), rate=rate)
    close(layer(U, rate=torch.tensor(1.0)), layer(U))


def test_memory_alone():
    memory = LegendreMemory(8, 20.0)
    with pytest.raises(ValueError, match="want rate finite and > 0"):
        memory.system(-1.0)
    m = memory.step(torch.ones(2), torch.zeros(2, 8))
    assert m.dtype == F32 and m.shape == (2, 8)
    for v, wrong, error, said in [
        (torch.ones(2), torch.zeros(2, 7), ValueError, r"want x \(..., 8\)"),
        ([1.0], torch.zeros(1, 8), TypeError, "as a torch.Tensor, got list"),
    ]:
        with pytest.raises(error, match=said):
            memory.step(v, wrong)


@pytest.mark.parametrize(
    ("v", "m", "error", "said"),
    [
        ([1.0], None, TypeError, "want v as a torch.Tensor, got list"),
        (torch.ones(5).long(), None, TypeError, "want v of a floating"),
        (torch.tensor(1.0), None, ValueError, "want the length of v >= 1, got 0"),
        (torch.ones(2, 0), None, ValueError, "want the length of v >= 1, got 0"),
        (torch.ones(2, 5), torch.ones(3, 8), ValueError, r"want m \(2, 8\), .* got \(3, 8\)"),
        (torch.ones(2, 5), torch.ones(2, 7), ValueError, r"want m \(2, 8\), .* got \(2, 7\)"),
    ],
)
def test_table_refuses(v, m, error, said):
    with pytest.raises(error, match=said):
        LegendreTable(8, 20.0, 4)(v, m)


@pytest.mark.parametrize("length", [True, False, 0.0, 3.0, None])
def test_table_wants_a_whole_length(length):
    with pytest.raises(TypeError, match="want length as an int"):
        LegendreTable(8, 20.0, length)


@pytest.mark.parametrize(
    ("rate", "error", "said"),
    [
        (0.0, ValueError, "want rate finite and > 0, got 0.0"),
        (math.nan, ValueError, "want rate finite and > 0, got nan"),
        (None, TypeError, "want rate as a number"),
        (torch.ones(2), ValueError, r"want rate as one number, got a tensor \(2,\)"),
    ],
)
def test_system_refuses_rates(rate, error, said):
    with pytest.raises(error, match=said):
        lmu_system(8, 20.0, rate)


@both
def test_shapes_on_the_meta_device(name):
    layer = LAYERS[name](3, 8, 20.0, device="meta")
    y, state = layer(torch.zeros(2, 9, 3, device="meta"), return_state=True)
    assert y.shape == (2, 9, 3) and state.shape == layer.initial_state(2).shape and y.is_meta
