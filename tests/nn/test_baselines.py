"""The baselines: seven layers, one interface; each against its definition; what is refused."""

import builtins
import copy
import inspect
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4lite.nn import baselines as module
from s4lite.nn.attention import rotate
from s4lite.nn.baselines import (
    GRU,
    LSTM,
    RNN,
    Attention,
    CKConv,
    DilatedConv,
    NeuralODE,
    baselines,
)
from s4lite.nn.layer import S4D
from s4lite.nn.lookback import last_samples
from s4lite.nn.model import S4Block, SequenceModel, Stack
from s4lite.ops.conv import causal_conv_naive

F32, F64 = torch.float32, torch.float64

MADE = {
    "rnn": (RNN, {}),
    "rnn-orthogonal": (RNN, {"gain": 1.0}),
    "lstm": (LSTM, {}),
    "lstm-chrono": (LSTM, {"chrono": 50}),
    "gru-chrono": (GRU, {"chrono": 50}),
    "tcn": (DilatedConv, {"levels": 3, "kernel_size": 3}),
    "tcn-one-tap": (DilatedConv, {"levels": 2, "kernel_size": 1}),
    "ckconv": (CKConv, {"l_max": 12}),
    "ckconv-one-lag": (CKConv, {"l_max": 1}),
    "transformer": (Attention, {"heads": 3}),
    "transformer-window": (Attention, {"window": 5}),
    "transformer-window-one": (Attention, {"window": 1}),
    "node": (NeuralODE, {}),
    "node-rk4": (NeuralODE, {"method": "rk4"}),
    "node-euler": (NeuralODE, {"method": "euler", "substeps": 3}),
}
every_layer = pytest.mark.parametrize("name", MADE)
SAMPLES_ONLY = ["rnn", "lstm", "gru-chrono", "tcn"]


def make(name: str, d_model: int = 6, *, seed: int = 0, **options):
    kind, given = MADE[name]
    torch.manual_seed(seed)
    return kind(d_model, **{"dtype": F64, **given, **options})


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / want.abs().max().clamp(min=1e-300) if want.numel() else 0.0
    assert gap < tol, f"off by {gap:.1e}"


@torch.no_grad()
def walk(layer, u: Tensor, state: Tensor | None = None, **options) -> tuple[Tensor, Tensor]:
    state = layer.initial_state(len(u)) if state is None else state
    y = []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state, **options)
        y.append(y_t)
    return torch.stack(y, 1), state


# ------------------------------------------------------------------ one interface


def test_names_and_modules():
    assert list(baselines()) == ["rnn", "lstm", "gru", "tcn", "ckconv", "transformer", "node"]
    for kind in baselines().values():
        assert getattr(module, kind.__name__) is kind
        layer = kind(4)
        assert layer(torch.zeros(2, 3, 4)).shape == (2, 3, 4)
        assert all(p.dtype == F32 for p in layer.parameters())


@every_layer
@pytest.mark.parametrize("L", [1, 2, 33])
@torch.no_grad()
def test_steps_are_forward(name, L):
    layer, u = make(name), draw(3, L, 6)
    y, end = layer(u, return_state=True)
    y_walk, end_walk = walk(layer, u)
    close(y_walk, y)
    close(end_walk, end)


@every_layer
@pytest.mark.parametrize("cuts", [(0, 1, 33), (0, 7, 8, 20, 33)])
@torch.no_grad()
def test_pieces_are_the_whole(name, cuts):
    layer, u = make(name), draw(2, 33, 6)
    y, end = layer(u, return_state=True)
    state, pieces = None, []
    for a, b in itertools.pairwise(cuts):
        piece, state = layer(u[:, a:b], state, return_state=True)
        pieces.append(piece)
    close(torch.cat(pieces, 1), y)
    close(state, end)


@every_layer
@torch.no_grad()
def test_initial_state_is_no_state(name):
    layer, u = make(name), draw(2, 9, 6)
    assert torch.equal(layer(u, layer.initial_state(2)), layer(u))
    assert layer.initial_state().shape[0] == 1


@every_layer
def test_causal(name):
    layer, u = make(name), draw(2, 20, 6)
    late = u.clone()
    late[:, 12:] += 1.0
    y, moved = layer(u), layer(late)
    assert (y[:, :12] - moved[:, :12]).abs().max() < 1e-12
    assert (y[:, 12] - moved[:, 12]).abs().max() > 1e-6


@every_layer
@torch.no_grad()
def test_padding_is_as_if_not_there(name):
    layer, u, lengths = make(name), draw(3, 17, 6), [17, 4, 9]
    padded = u.clone()
    for b, n in enumerate(lengths):
        padded[b, n:] = math.nan
    tol = 1e-5 if name == "node" else 1e-12  # dopri5 chooses its steps for the whole batch
    y, end = layer(padded, lengths=lengths, return_state=True)
    more = layer(u[:, :5], end)
    for b, n in enumerate(lengths):
        alone, state = layer(u[b : b + 1, :n], return_state=True)
        close(y[b : b + 1, :n], alone, tol)
        assert not y[b, n:].any()
        close(more[b : b + 1], layer(u[b : b + 1, :5], state), tol)  # whatever the state looks like


@pytest.mark.parametrize("name", [n for n in MADE if n != "node"])  # dopri5: steps of the batch
def test_gradients_ignore_the_padding(name):
    layer, u = make(name), draw(2, 8, 6)
    padded = u.clone()
    padded[1, 3:] = math.nan
    params = list(layer.parameters())
    got = torch.autograd.grad(layer(padded, lengths=[8, 3]).square().sum(), params)
    alone = layer(u[:1]).square().sum() + layer(u[1:, :3]).square().sum()
    for a, b in zip(got, torch.autograd.grad(alone, params), strict=True):
        assert (a - b).abs().max() < 1e-11 * max(1.0, b.abs().max().item())


@every_layer
def test_gradients_flow(name):
    layer, u = make(name), draw(2, 11, 6).requires_grad_()
    layer(u).square().sum().backward()
    idle = {"ckconv-one-lag": "net.maps.0.weight"}.get(name)
    for key, p in layer.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all()
        if name != "transformer-window-one" or not key.startswith(("query", "key")):
            assert p.grad.any() or key == idle, key
    assert u.grad.any()


@pytest.mark.parametrize("name", [n for n in MADE if n != "node"])
def test_gradcheck(name):
    layer = make(name, 6)
    state = layer(draw(1, 2, 6, seed=3), return_state=True)[1].detach().requires_grad_()

    def run(u, s):
        return layer(u, s, return_state=True)

    assert torch.autograd.gradcheck(run, (draw(1, 3, 6).requires_grad_(), state))


@every_layer
@torch.no_grad()
def test_single_precision(name):
    layer = make(name)
    small = copy.deepcopy(layer).float()
    u = draw(2, 40, 6)
    y, end = small(u.float(), return_state=True)
    assert y.dtype == end.dtype == F32
    close(y.double(), layer(u), 2e-5)
    half = copy.deepcopy(layer).bfloat16()
    if not name.startswith("node"):
        y, end = half(u.bfloat16(), return_state=True)
        assert y.dtype == torch.bfloat16 and end.dtype == F32
        close(y.double(), layer(u), 0.15)


@every_layer
def test_copies_pickles_and_state_dicts(name):
    layer, u = make(name), draw(1, 5, 6)
    y = layer(u)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(u), y)
    other = make(name, seed=9)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(u), y)
    key = next(iter(layer.state_dict()))
    before = other.state_dict()[key].clone()
    broken = {k: v + 1 for k, v in layer.state_dict().items() if k != key}
    with pytest.raises(ValueError, match=r"nothing was loaded.*is missing"):
        other.load_state_dict(broken)
    bad = layer.state_dict() | {key: torch.full_like(before, math.nan)}
    with pytest.raises(ValueError, match="want finite values"):
        other.load_state_dict(bad)
    assert torch.equal(other(u), y) and torch.equal(other.state_dict()[key], before)


@every_layer
def test_dropout_drops_whole_channels(name):
    layer, u = make(name, dropout=0.5), draw(1, 7, 6)
    if name.startswith("ckconv"):
        layer = make(name, dropout=0.5, activation=None, mixer=None)
    torch.manual_seed(0)
    y = layer(u)
    gone = (y == 0).all(1)
    assert gone.any() and not gone.all() and not (y[..., ~gone[0]] == 0).all(1).any()
    layer.eval()
    assert torch.equal(layer(u), layer(u)) and not (layer(u) == 0).all(1).any()


def test_forward_changes_nothing():
    for name in MADE:
        layer, u = make(name), draw(2, 6, 6)
        before = {k: v.clone() for k, v in layer.state_dict().items()}
        state = layer.initial_state(2)
        kept = state.clone()
        _, after = layer(u, state, return_state=True)
        layer.step(u[:, 0], after)
        assert torch.equal(state, kept)
        assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


# ------------------------------------------------------------------ in networks


@every_layer
@torch.no_grad()
def test_in_a_block_a_stack_and_a_model(name):
    kind, options = MADE[name]
    torch.manual_seed(0)
    block = S4Block(6, layer=kind, dtype=F64, dropout=0.1, **options).eval()
    assert isinstance(block.layer, kind) and block.layer.drop is not None
    stack = Stack(6, 2, layer=kind, dtype=F64, **options).eval()
    model = SequenceModel(3, 2, 6, 2, layer=kind, dtype=F64, pool=None, **options).eval()
    u, v = draw(2, 12, 6), draw(2, 12, 3)
    for net, x in [(block, u), (stack, u), (model, v)]:
        y = net(x)
        state = net.initial_state(2)
        for k in range(12):
            y_k, state = net.step(x[:, k], state)
            close(y_k, y[:, k], 1e-10)
        first, mid = net(x[:, :5], return_state=True)
        second, _ = net(x[:, 5:], mid, return_state=True)
        close(torch.cat([first, second], 1), y, 1e-10)


@pytest.mark.parametrize("name", [n for n in MADE if n != "node"])
@torch.no_grad()
def test_a_model_with_lengths(name):
    kind, options = MADE[name]
    torch.manual_seed(0)
    model = SequenceModel(3, 2, 6, 2, layer=kind, dtype=F64, **options).eval()
    u = draw(2, 9, 3)
    padded = u.clone()
    padded[1, 4:] = math.nan
    close(model(padded, lengths=[9, 4])[1:], model(u[1:, :4]), 1e-11)


def test_the_interface_is_that_of_s4d_but_for_irregular_samples():
    """No baseline has a clock: none takes `dt`, and a block says so (tests of the model)."""
    for method in ("step", "initial_state"):
        want = [key for key in inspect.signature(getattr(S4D, method)).parameters if key != "dt"]
        for kind in baselines().values():
            assert list(inspect.signature(getattr(kind, method)).parameters) == want
    for kind in baselines().values():
        base = inspect.signature(kind.forward).parameters
        for key, p in inspect.signature(S4D.forward).parameters.items():
            if key not in ("dt", "ready"):
                assert base[key].kind == p.kind and base[key].default == p.default
        assert "dt" not in base and "ready" not in base


@pytest.mark.parametrize("name", ["lstm-chrono", "tcn", "ckconv", "transformer"])
@torch.no_grad()
def test_compiles(name):
    torch._dynamo.reset()
    layer = make(name)
    whole = not name.startswith("lstm")  # dynamo runs torch's recurrent nets outside the graph
    quick = torch.compile(layer, backend="eager", fullgraph=whole)
    for L in (9, 12):
        close(quick(draw(2, L, 6)), layer(draw(2, L, 6)))


# ------------------------------------------------------------------ recurrent


@pytest.mark.parametrize("L", [1, 2, 99])
def test_rnn_is_its_definition(L):
    layer, u = make("rnn"), draw(1, L, 6)
    net, h = layer.net, torch.zeros(6, dtype=F64)
    for k in range(L):
        pre = net.weight_hh_l0 @ h + net.weight_ih_l0 @ u[0, k] + net.bias_hh_l0 + net.bias_ih_l0
        h = torch.tanh(pre)
        close(layer(u)[0, k], h)
    close(layer(u, return_state=True)[1][0, :, 0], h)


def test_gru_and_lstm_are_their_definitions():
    u = draw(1, 23, 6)
    for name in ("lstm-chrono", "gru-chrono"):
        layer = make(name)
        net, h, c = layer.net, torch.zeros(6, dtype=F64), torch.zeros(6, dtype=F64)
        for k in range(23):
            a = net.weight_ih_l0 @ u[0, k] + net.bias_ih_l0
            b = net.weight_hh_l0 @ h + net.bias_hh_l0
            if name.startswith("lstm"):
                i, f, g, o = (a + b).split(6)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            else:
                (ar, az, an), (br, bz, bn) = a.split(6), b.split(6)
                z = (az + bz).sigmoid()
                h = (1 - z) * torch.tanh(an + (ar + br).sigmoid() * bn) + z * h
        y, end = layer(u, return_state=True)
        close(y[0, -1], h)
        want = torch.stack([h, c], -1) if name.startswith("lstm") else h[:, None]
        close(end[0], want)


@pytest.mark.parametrize(("kind", "width"), [(LSTM, 4), (GRU, 3)])
def test_chrono_biases(kind, width):
    layer = kind(64, chrono=1000, dtype=F64)
    total = (layer.net.bias_ih_l0 + layer.net.bias_hh_l0).detach()
    keep = total.view(width, 64)[1]
    assert (keep >= 0).all() and (keep <= math.log(999)).all()
    assert keep.exp().mean() > 300  # evenly spread in time, not in its logarithm
    if kind is LSTM:
        assert torch.equal(total.view(4, 64)[0], -keep)


def test_orthogonal_gain():
    W = make("rnn-orthogonal", gain=1.5).net.weight_hh_l0
    close(W @ W.T, 2.25 * torch.eye(6, dtype=F64), 1e-12)
    for dtype in (torch.bfloat16, torch.float16):  # for which torch has no QR
        W = make("rnn-orthogonal", gain=1.5, dtype=dtype).net.weight_hh_l0
        assert W.dtype == dtype and W.requires_grad
        assert ((W.double() @ W.double().T) - 2.25 * torch.eye(6, dtype=F64)).abs().max() < 0.03


@pytest.mark.parametrize("width", [64, 300])
def test_fresh_links_shrink_as_foreseen(width):
    """eq-long-fresh: the mean square of a fresh weight is 1 / (3 width), whatever the width."""
    W = make("rnn", width).net.weight_hh_l0
    assert (3 * W.square().mean() * width - 1).abs() < 0.05
    assert (torch.linalg.eigvals(W.detach()).abs().max() * 3**0.5 - 1).abs() < 0.2


def test_bad_starts():
    for kind in (LSTM, GRU):
        with pytest.raises(ValueError, match="want chrono > 2 samples, got 2"):
            kind(4, chrono=2)
        with pytest.raises(TypeError, match="want chrono as a number"):
            kind(4, chrono="long")
    for gain in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="want gain finite and > 0"):
            RNN(4, gain=gain)


# ------------------------------------------------------------------ convolutions


@pytest.mark.parametrize(("levels", "taps"), [(1, 1), (1, 2), (3, 2), (2, 4), (4, 3)])
def test_dilated_is_its_definition(levels, taps):
    layer, u = make("tcn", levels=levels, kernel_size=taps), draw(2, 21, 6)
    x = u
    for i, conv in enumerate(layer.convs):
        total = conv.bias.expand(2, 21, 6).clone()
        for t in range(21):
            for j in range(taps):
                if t - j * 2**i >= 0:
                    total[:, t] = (
                        total[:, t] + x[:, t - j * 2**i] @ conv.weight[..., taps - 1 - j].T
                    )
        x = x + F.gelu(total)
    close(layer(u), x)
    assert layer.receptive_field == 1 + (taps - 1) * (2**levels - 1)
    assert layer.initial_state(2).shape == (2, 6, layer.receptive_field - 1)


@pytest.mark.parametrize(("levels", "taps"), [(1, 1), (3, 2), (2, 4), (4, 3)])
def test_nothing_comes_from_beyond_the_receptive_field(levels, taps):
    layer = make("tcn", levels=levels, kernel_size=taps)
    R = layer.receptive_field
    u = draw(1, R + 5, 6).requires_grad_()
    slope = torch.autograd.grad(layer(u)[0, -1].sum(), u)[0][0].flip(0)
    assert slope[:R].abs().amax(-1).min() > 0 and (slope[R:] == 0.0).all()


@pytest.mark.parametrize("rate", [1.0, 2.0, 0.5, 0.7, 3.3])
@pytest.mark.parametrize("L", [1, 2, 29])
def test_ckconv_is_its_definition(rate, L):
    layer, u = make("ckconv", activation=None, mixer=None), draw(2, L, 6)
    K = layer.kernel(rate)
    for l in range(K.shape[1]):  # the function at lag l * rate, times the step
        lag = torch.tensor([l * rate / 12], dtype=F64)
        close(K[:, l], rate * layer.net(lag)[:, 0] / 12**0.5)
    assert (K.shape[1] - 1) * rate < 12 <= K.shape[1] * rate
    close(layer(u, rate=rate).mT, causal_conv_naive(u.mT, K))


def test_ckconv_kernel_at_another_rate_is_the_same_function():
    layer = CKConv(6, 64, dtype=F64)
    assert torch.equal(layer.kernel(2.0), 2 * layer.kernel()[:, ::2])
    assert torch.equal(layer.kernel(), 2 * layer.kernel(0.5)[:, ::2])


def test_ckconv_resamples_at_first_order():
    layer = make("ckconv", l_max=64, activation=None, mixer=None)
    t = torch.arange(4096, dtype=F64) / 4096
    u = torch.stack([torch.cos(2 * math.pi * 20 * t + p) for p in range(6)], -1)[None]
    fine = layer(u, rate=1 / 64)[:, 63::64]  # kernel of 64 time units, sampled 64 times as finely
    errors = []
    for step in (4, 8, 16):
        y = layer(u[:, step - 1 :: step], rate=step / 64)[:, 64 // step - 1 :: 64 // step]
        errors.append((y - fine).norm())
    ratios = torch.stack(errors)[1:] / torch.stack(errors)[:-1]
    assert ((ratios > 1.7) & (ratios < 2.6)).all()


@torch.no_grad()
def test_ckconv_runs_online_at_coarser_rates():
    layer, u = make("ckconv"), draw(2, 30, 6)
    for rate in (2.0, 3.3, 20.0):
        y, end = layer(u, rate=rate, return_state=True)
        y_walk, end_walk = walk(layer, u, rate=rate)
        close(y_walk, y)
        close(end_walk, end)


def test_ckconv_refuses_states_at_finer_rates():
    layer, u = make("ckconv"), draw(2, 5, 6)
    assert layer(u, rate=0.5).shape == u.shape
    for call in (
        lambda: layer(u, rate=0.5, return_state=True),
        lambda: layer(u, layer.initial_state(2), rate=0.5),
        lambda: layer.step(u[:, 0], layer.initial_state(2), rate=0.9),
    ):
        with pytest.raises(ValueError, match="want rate >= 1 for states and steps of CKConv"):
            call()


def test_last_samples():
    x = torch.arange(14.0).view(1, 1, 14).expand(2, 3, 14)
    assert last_samples(x, 4, None)[0, 0].tolist() == [10, 11, 12, 13]
    got = last_samples(x, 4, torch.tensor([10, 3]))
    assert got[0, 0].tolist() == [10, 11, 12, 13] and got[1, 2].tolist() == [3, 4, 5, 6]
    assert last_samples(x, 0, None).shape == (2, 3, 0)


# ------------------------------------------------------------------ attention


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("rate", [1.0, 2.5])
def test_attention_is_its_definition(heads, window, rate):
    layer, u = make("transformer", heads=heads, window=window), draw(1, 13, 6)
    projected = (layer.query(u[0]), *layer.key_value(u[0]).split(6, -1))
    q, k, v = (x.view(13, heads, 6 // heads) for x in projected)
    place = rate * torch.arange(13, dtype=F64)
    out = torch.zeros(13, heads, 6 // heads, dtype=F64)
    for t in range(13):
        first = 0 if window is None else max(0, t + 1 - window)
        for h in range(heads):
            q_t, keys = rotate(q[t : t + 1, h], place[t : t + 1]), rotate(k[:, h], place)
            w = torch.softmax(keys[first : t + 1] @ q_t[0] / (6 // heads) ** 0.5, 0)
            out[t, h] = w @ v[first : t + 1, h]
    close(layer(u, rate=rate)[0], layer.mix(out.reshape(13, 6)))


def test_rotation_knows_differences_only():
    q, k = draw(1, 8), draw(1, 8, seed=2)
    dots = [
        (rotate(q, torch.tensor([a])) * rotate(k, torch.tensor([b]))).sum()
        for a, b in [(3, 1), (103, 101), (1003.0, 1001.0)]
    ]
    assert max(dots) - min(dots) < 1e-12
    assert (rotate(q, torch.tensor([5])) * q).sum() < (q * q).sum() - 1e-3
    close(rotate(q, torch.tensor([7])).norm(), q.norm())


def test_the_past_is_kept_and_grows():
    layer = make("transformer")
    _, state = layer(draw(2, 5, 6), return_state=True)
    assert layer.initial_state(2).shape == (2, 0, 13) and state.shape == (2, 5, 13)
    assert layer(draw(2, 4, 6), state, return_state=True)[1].shape == (2, 9, 13)
    _, state = make("transformer-window")(draw(2, 9, 6), return_state=True)
    assert state.shape == (2, 4, 13)


def test_window_ends_where_it_says():
    layer, u = make("transformer-window"), draw(1, 12, 6).requires_grad_()
    slope = torch.autograd.grad(layer(u)[0, -1].sum(), u)[0][0].flip(0).abs().amax(-1)
    assert slope[:5].min() > 0 and (slope[5:] == 0).all()


def test_attention_refuses():
    with pytest.raises(ValueError, match="want d_model a multiple of 2 heads, got 6, heads=2"):
        Attention(6, heads=2)
    with pytest.raises(ValueError, match="want window >= 1"):
        Attention(6, window=0)
    layer = make("transformer-window")
    with pytest.raises(ValueError, match="want state"):
        layer(draw(2, 3, 6), torch.zeros(2, 5, 13, dtype=F64))  # a window of 5 keeps 4
    with pytest.raises(ValueError, match="want state"):
        layer(draw(2, 3, 6), torch.zeros(2, 13, dtype=F64))


# ------------------------------------------------------------------ neural ODE


def test_without_memory_it_is_a_leak():
    """With W = 0 the flow is x' = g - x, solved by hand."""
    layer, u = make("node", tol=1e-10, dt=0.3), draw(2, 9, 6)
    nn.init.zeros_(layer.inner.weight)
    nn.init.zeros_(layer.inner.bias)
    times = torch.tensor([0.0, 0.5, 0.7, 2.0, 2.1, 3.0, 3.5, 5.5, 5.6, 6.0], dtype=F64)
    for how, held in [
        ({}, torch.full((9,), 0.3, dtype=F64)),
        ({"times": times}, times.diff()),
        ({"rate": 2.0}, torch.full((9,), 0.6, dtype=F64)),
        ({"times": times, "rate": 0.5}, times.diff() / 2),
    ]:
        x, y = torch.zeros(2, 6, dtype=F64), layer(u, **how)
        for k, h in enumerate(held.tolist()):
            g = torch.tanh(layer.outer(u[:, k]))
            x = g + math.exp(-h) * (x - g)
            assert (y[:, k] - x).abs().max() < 1e-8


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
@torch.no_grad()
def test_orders(method, order):
    exact, u = make("node", tol=1e-12, dt=0.5)(draw(1, 6, 6)), draw(1, 6, 6)
    errors = [(make(f"node-{method}", dt=0.5, substeps=n)(u) - exact).norm() for n in (4, 8, 16)]
    got = torch.stack(errors).log2().diff().neg()
    assert (got - order).abs().max() < 0.2


@torch.no_grad()
def test_tolerance_is_kept():
    u = draw(1, 8, 6)
    for dt in (0.1, 1.0):
        exact = make("node", tol=1e-12, dt=dt)(u)
        for tol in (1e-4, 1e-7):
            assert (make("node", tol=tol, dt=dt)(u) - exact).norm() < 100 * tol


@torch.no_grad()
def test_times_a_row_each():
    layer, u = make("node-rk4"), draw(2, 5, 6)
    times = draw(2, 6).abs().cumsum(-1)
    y = layer(u, times=times)
    for b in range(2):
        close(y[b : b + 1], layer(u[b : b + 1], times=times[b]))
    even = torch.linspace(0, 0.5, 6, dtype=F64)
    close(layer(u, times=even), layer(u), 1e-12)
    first, state = layer(u[:, :2], times=times[:, :3], return_state=True)
    close(torch.cat([first, layer(u[:, 2:], state, times=times[:, 2:])], 1), y)


def test_evaluations_are_counted():
    layer = make("node-euler")  # three steps a sample
    layer(draw(1, 7, 6))
    assert layer.evaluations == 21
    layer = make("node-rk4")
    layer(draw(1, 7, 6))
    assert layer.evaluations == 28


def test_bad_times():
    layer, u = make("node-rk4"), draw(2, 3, 6)
    for times, said in [
        (torch.arange(3.0), r"want times \(4,\) or \(2, 4\)"),
        (torch.tensor([0.0, 1.0, 1.0, 2.0]), "want times finite that increase"),
        (torch.tensor([0.0, 1.0, math.nan, 2.0]), "want times finite that increase"),
        (torch.tensor([0.0, 1.0, 2.0, math.inf]), "want times finite that increase"),
    ]:
        with pytest.raises(ValueError, match=said):
            layer(u, times=times)
    with pytest.raises(TypeError, match="want times"):
        layer(u, times=[0, 1, 2, 3])
    with pytest.raises(TypeError, match="want times real"):
        layer(u, times=torch.arange(4) + 0j)
    with pytest.raises(TypeError, match="times"):
        make("lstm")(u, times=torch.arange(4.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_adaptive_solver_wants_finite_input(bad):
    u = draw(2, 4, 6)
    u[1, 2, 3] = bad
    with pytest.raises(ValueError, match="want u finite: no step of dopri5"):
        make("node")(u)
    assert make("node-rk4")(u)[0].isfinite().all()  # fixed steps spoil one row only
    padded = torch.cat([u[:1], u[1:]]), [4, 2]
    assert make("node")(padded[0], lengths=padded[1]).isfinite().all()  # padding does not count


def test_bad_solvers():
    with pytest.raises(ValueError, match='want method "dopri5", "rk4" or "euler"'):
        NeuralODE(4, method="heun")
    for name in ("dt", "tol"):
        with pytest.raises(ValueError, match=f"want {name} finite and > 0"):
            NeuralODE(4, **{name: 0.0})
    with pytest.raises(ValueError, match="want substeps >= 1"):
        NeuralODE(4, substeps=0)


def test_without_torchdiffeq(monkeypatch):
    real = builtins.__import__

    def gone(name, *rest):
        if name.startswith("torchdiffeq"):
            raise ModuleNotFoundError("No module named 'torchdiffeq'", name="torchdiffeq")
        return real(name, *rest)

    layer = NeuralODE(4)
    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "s4lite\[baselines\]"'):
        layer(torch.zeros(1, 2, 4))


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", SAMPLES_ONLY)
def test_no_other_rate_for_those_that_know_samples_only(name):
    layer, u = make(name), draw(1, 4, 6)
    for rate in (2.0, 0.5):
        with pytest.raises(ValueError, match=r"want rate 1: \w+ (knows|counts) samples, not time"):
            layer(u, rate=rate)
        with pytest.raises(ValueError, match="want rate 1"):
            layer.step(u[:, 0], layer.initial_state(1), rate=rate)
    assert torch.equal(layer(u, rate=1.0), layer(u, rate=1))


@every_layer
def test_bad_input(name):
    layer, u = make(name), draw(2, 5, 6)
    state = layer(u, return_state=True)[1]
    with pytest.raises(ValueError, match="want u"):
        layer(u[0])
    with pytest.raises(ValueError, match="want u"):
        layer(u[..., :3])
    with pytest.raises(ValueError, match="want u"):
        layer(u[:, :0])
    with pytest.raises(TypeError, match="want u of"):
        layer(u.float())
    with pytest.raises(TypeError, match="want u of a floating"):
        layer(u.long())
    with pytest.raises(ValueError, match="want state"):
        layer(u[:1], state)
    with pytest.raises(ValueError, match="want state"):
        layer(u, state.float())
    with pytest.raises(TypeError, match=r"want state as a torch\.Tensor"):
        layer.step(u[:, 0], None)
    with pytest.raises(ValueError, match="want u"):
        layer.step(u, state)
    with pytest.raises(ValueError, match="want lengths from 1 to L"):
        layer(u, lengths=[6, 1])
    with pytest.raises(TypeError, match="want lengths"):
        layer(u, lengths=[5.0, 1.0])
    for rate in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="want rate"):
            layer(u, rate=rate)
    with pytest.raises(TypeError, match="want rate"):
        layer(u, rate="fast")


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU, DilatedConv, CKConv, Attention, NeuralODE])
def test_bad_arguments(kind):
    with pytest.raises(ValueError, match="want d_model >= 1"):
        kind(0)
    with pytest.raises(TypeError, match="want d_model as an int"):
        kind(4.0)
    with pytest.raises(ValueError, match="want dropout from 0 to 1"):
        kind(4, dropout=1.5)
    with pytest.raises(TypeError, match="want a floating dtype"):
        kind(4, dtype=torch.int64)
    with pytest.raises(TypeError):
        kind(4, d_state=64)


def test_bad_sizes():
    for options in ({"levels": 0}, {"kernel_size": 0}):
        with pytest.raises(ValueError, match=">= 1"):
            DilatedConv(4, **options)
    for options in ({"l_max": 0}, {"hidden": 0}, {"omega": 0.0}):
        with pytest.raises(ValueError, match=r">= 1|> 0"):
            CKConv(4, **options)
    with pytest.raises(ValueError, match="want mixer one of"):
        CKConv(4, mixer="conv")
