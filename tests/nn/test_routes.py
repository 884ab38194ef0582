"""Routes through a bank: all are one function, the rule chooses, and nobody waits for a device."""

import copy
import importlib.util
import itertools
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s4lite.nn import routes
from s4lite.nn.dplr import DPLRKernel
from s4lite.nn.filters import FilterBank
from s4lite.nn.kernel import DiagKernel
from s4lite.nn.layer import S4, S4D
from s4lite.nn.lssl import LSSL
from s4lite.nn.model import S4Block, SequenceModel
from s4lite.nn.routes import check_backend, choose_route, run_chunks

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
KINDS = [S4D, S4]
LINEAR = {"activation": None, "mixer": None}

every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind=S4D, d_model=3, d_state=8, **options):
    torch.manual_seed(0)
    return kind(d_model, d_state, **{"dtype": F64, **options})


def draw(*shape, seed=1, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def close(got, want, tol):
    assert got.shape == want.shape and got.dtype == want.dtype
    assert (got - want).abs().max() <= tol * want.abs().max()


@pytest.fixture
def force(monkeypatch):
    """Call with "kernel" or "chunks" to send every signal that way."""
    return lambda route: monkeypatch.setattr(routes, "_chunks_win", lambda *a: route == "chunks")


# ------------------------------------------------------------------ one function


@every_kind
@pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-10), (F32, 2e-5)])
@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_pieces_by_both_routes(force, kind, dtype, tol, rate):
    layer, u = make(kind, dtype=dtype), draw(2, 130, 3, dtype=dtype)
    x = layer.initial_state(2) + draw(2, 3, 4).to(layer.initial_state(1).dtype)
    force("kernel")
    with torch.no_grad():
        exact = copy.deepcopy(layer).double()
        judge = exact(u.double(), x.to(torch.complex128), rate=rate, return_state=True)
        for size, route in itertools.product((1, 7, 64, 130), ("kernel", "chunks")):
            force(route)
            state, y = x, []
            for piece in u.split(size, 1):
                z, state = layer(piece, state, rate=rate, return_state=True)
                y.append(z)
            close(torch.cat(y, 1).double(), judge[0], tol)
            close(state.to(torch.complex128), judge[1], tol)


@every_kind
@pytest.mark.parametrize("lengths", [None, [130, 1, 64]])
def test_gradients_by_both_routes(force, kind, lengths):
    found = []
    for route in ("kernel", "chunks"):
        force(route)
        layer, u = make(kind), draw(3, 130, 3).requires_grad_()
        x = torch.complex(draw(3, 3, 4), draw(3, 3, 4, seed=2)).requires_grad_()
        y, end = layer(u, x, lengths=lengths, return_state=True)
        loss = y.square().sum() + end.abs().square().sum()
        found.append([y, end, *torch.autograd.grad(loss, [u, x, *layer.parameters()])])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-10)


@every_kind
def test_second_derivatives_by_chunks(force, kind):
    force("chunks")
    layer = make(kind, 2, 4, **LINEAR)
    u = draw(1, 9, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda u, C: torch.func.functional_call(layer, {"kernel.C": C}, (u,)),
        (u, layer.kernel.C.detach().requires_grad_()),
    )


@every_kind
@pytest.mark.parametrize("L", [1, 2, 99])
def test_both_directions_by_a_flip(kind, L):
    layer, u = make(kind, bidirectional=True), draw(2, 3, L)
    close(run_chunks(layer, u, None, 1.5, "chunks")[0], layer.filter(u, rate=1.5), 1e-12)


@every_kind
def test_half_precision_rounds_once_by_chunks(force, kind):
    force("chunks")
    layer, u = make(kind, dtype=F32, **LINEAR), draw(2, 300, 3).to(BF16)
    x = layer.initial_state(2)
    exact, end = layer(u.float(), x, return_state=True)
    with torch.autocast("cpu", dtype=BF16):
        y, last = layer(u, x, return_state=True)
    assert torch.equal(y, exact.to(BF16)) and torch.equal(last, end)


@every_kind
def test_the_filters_are_an_island_of_float32(kind):
    layer, u = make(kind, dtype=F32, **LINEAR), draw(2, 300, 3).to(BF16)
    exact = layer(u.float())
    with torch.autocast("cpu", dtype=BF16):
        y, K = layer(u), layer.kernel(300)
    assert y.dtype == BF16 and torch.equal(K, layer.kernel(300))
    assert (y - exact.to(BF16)).abs().max() <= 2.0**-7 * exact.abs().max()
    assert (y == exact.to(BF16)).float().mean() > 0.99


@every_kind
def test_runs_are_equal_to_the_bit(force, kind):
    layer, u = make(kind, dtype=F32), draw(2, 300, 3, dtype=F32)
    for route in ("kernel", "chunks"):
        force(route)
        runs = []
        for _ in range(2):
            y = layer(u)
            runs.append([y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@every_kind
def test_ready_kernels_are_the_layer_s_own(kind):
    layer, u = make(kind), draw(2, 50, 3)
    assert torch.equal(layer(u, rate=2.0, ready=layer.kernel(50, 2.0)), layer(u, rate=2.0))


# ------------------------------------------------------------------ the rule


def route_of(layer, L, batch=2, stateful=False, gaps=None):
    u = layer.D.new_zeros(()).expand(batch, layer.d_model, L)
    return choose_route(layer, u, gaps, stateful)


def test_the_rule():
    s4d, s4 = make(), make(S4)
    for layer, with_state, without in ((s4d, 256, 32768), (s4, 1, 65536)):
        for stateful, start in ((True, with_state), (False, without)):
            assert route_of(layer, start, stateful=stateful) == "chunks"
            assert start == 1 or route_of(layer, start - 1, stateful=stateful) == "kernel"
    assert route_of(make(bidirectional=True), 1 << 20) == "kernel"
    assert route_of(LSSL(3, 8), 1 << 20, stateful=True) == "kernel"  # has no chunks
    assert route_of(make(device="meta"), 1 << 20, stateful=True) == "kernel"
    assert route_of(s4d, 9, gaps=torch.ones(2, 9)) == "scan"


def test_the_batch_changes_no_output():
    layer, u = make(), draw(5, 300, 3)
    for how in ({}, {"return_state": True}):
        whole, one = layer(u, **how), layer(u[:1], **how)
        whole, one = (z[0] if how else z for z in (whole, one))
        close(one, whole[:1], 1e-14)


def test_transforms_take_the_kernel(force):
    layer, u = make(), draw(4, 300, 3)
    state = layer.initial_state(1)
    y = torch.func.vmap(lambda u: layer(u[None], state, return_state=True)[0][0])(u)
    close(y, layer(u, layer.initial_state(4)), 1e-12)


# ------------------------------------------------------------------ backends


@pytest.mark.parametrize("backend", ["cuda", "", "TRITON", None, 1, ["torch"]])
@pytest.mark.parametrize(
    "build",
    [
        lambda b: S4D(3, 8, backend=b),
        lambda b: S4(3, 8, backend=b),
        lambda b: FilterBank(DiagKernel(3, 8), backend=b),
        lambda b: S4Block(3, d_state=8, backend=b),
        check_backend,
    ],
)
def test_unknown_backends_are_refused_before_the_first_draw(build, backend):
    kernel_draws = "FilterBank" in str(build.__code__.co_names)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match='want backend "auto", "torch" or "triton", got'):
        build(backend)
    assert kernel_draws or torch.equal(before, torch.get_rng_state())


def test_s4_says_why_it_has_no_triton():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="diagonal plus low rank ones are matrix products already"):
        S4(3, 8, backend="triton")
    assert torch.equal(before, torch.get_rng_state())
    bank = FilterBank(DPLRKernel(3, 8), backend="triton")
    if importlib.util.find_spec("triton"):
        with pytest.raises(ValueError, match="DPLRKernel is not diagonal"):
            choose_route(bank, torch.zeros(1, 3, 9), None, False)
    bank.backend = "cuda"
    with pytest.raises(ValueError, match='want backend "auto"'):
        choose_route(bank, torch.zeros(1, 3, 9), None, False)


def test_a_backend_is_no_weight():
    layer, u = make(backend="torch"), draw(2, 50, 3)
    assert not any("backend" in name for name in layer.state_dict())
    other = make()
    other.load_state_dict(layer.state_dict())
    assert other.backend == "auto" and torch.equal(other(u), layer(u))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.backend == "torch" and torch.equal(twin(u), layer(u))


def test_layers_pickled_before_there_was_a_choice():
    layer, u = make(), draw(2, 50, 3)
    del layer.__dict__["backend"]
    old = pickle.loads(pickle.dumps(layer))
    assert old.backend == "auto" and torch.equal(old(u), make()(u))


# ------------------------------------------------------------------ memory


class Alive(TorchDispatchMode):
    """The most bytes of tensors alive at once, of those that it saw being born."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        out = call(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage() not in self.known:
                self.known.add(x.untyped_storage())
                self.now += x.untyped_storage().nbytes()
                weakref.finalize(x.untyped_storage(), self.gone, x.untyped_storage().nbytes())
        self.most = max(self.most, self.now)
        return out

    def gone(self, size):
        self.now -= size


@every_kind
@pytest.mark.parametrize(("state", "bound"), [(False, 10), (True, 11)])
def test_twelve_inputs_of_memory(kind, state, bound):
    torch.manual_seed(0)
    layer, u = kind(32), torch.randn(1, 65536, 32, requires_grad=True)
    x = layer.initial_state(1) if state else None
    with Alive() as watched:
        layer(u, x).sum().backward()
    assert watched.most < bound * u.numel() * u.itemsize


@every_kind
@pytest.mark.parametrize("route", ["kernel", "chunks"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_head_gets_what_it_likes(force, kind, route, batch):
    """In another layout a linear map adds its bias in a second tensor."""
    force(route)
    layer, seen = make(kind), []
    layer.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    layer(draw(batch, 70, 3))
    assert seen[0].is_contiguous()


def test_nothing_is_kept_twice():
    """Beside what the kernel keeps: u, K, D of the convolution, and four inputs of the head."""
    layer, u, seen = make(d_model=16, d_state=2, dtype=F32), draw(4, 2048, 16, dtype=F32), {}
    u.requires_grad_()

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        layer(u)
    seen.pop(u.untyped_storage().data_ptr())
    assert sum(seen.values()) < 5 * u.numel() * u.itemsize


# ------------------------------------------------------------------ nobody waits

ASKING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique"}


class Questions(TorchDispatchMode):
    """Calls that would make the host wait for a device, or copy to it or from it."""

    def __init__(self):
        super().__init__()
        self.asked, self.calls = [], 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        name, out = call._schema.name.removeprefix("aten::"), call(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, out)) if isinstance(x, torch.Tensor)}
        copied = name in ("_to_copy", "copy_") and len(devices) > 1
        self.calls += 1
        if copied or (name in ASKING and devices != {"cpu"}):
            self.asked.append(name)
        return out


class Numbers(TorchFunctionMode):
    """Python numbers that become tensors on a device."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_function__(self, call, types, args=(), kwargs=None):
        makes = call in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if makes and torch.device((kwargs or {}).get("device") or "cpu").type != "cpu":
            self.asked.append(call.__name__)
        return call(*args, **(kwargs or {}))


def questions(run):
    with Questions() as dispatched, Numbers() as numbers:
        run().sum().backward()
    assert dispatched.calls > 20
    return dispatched.asked + numbers.asked


def on_meta(kind, **options):
    return kind(8, 8, device="meta", **options)


W = torch.empty(2, 300, 8, device="meta")
ENDS = torch.empty(2, dtype=torch.int64, device="meta")
GAPS = torch.empty(2, 300, device="meta")
RUNS = {
    "forward": lambda m: m(W),
    "rate": lambda m: m(W, rate=2.0),
    "lengths": lambda m: m(W, lengths=ENDS),
    "state": lambda m: m(W, m.initial_state(2), return_state=True, lengths=ENDS)[0],
    "gaps": lambda m: m(W, m.initial_state(2), dt=GAPS, lengths=ENDS),
    "step": lambda m: m.step(W[:, 0], m.initial_state(2), rate=2.0)[0],
    "uneven step": lambda m: m.step(W[:, 0], m.initial_state(2), dt=GAPS[:, 0])[0],
}


@every_kind
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("whole", ["layer", "block", "model"])
def test_nobody_waits(kind, run, whole):
    """On meta no value exists, and layers treat every device but the CPU alike."""
    if whole == "layer":
        module = on_meta(kind)
    elif whole == "block":
        module = S4Block(8, layer=kind, d_state=8, device="meta")
    else:
        module = SequenceModel(8, 3, 8, 2, layer=kind, d_state=8, device="meta", pool=None)
        module.stack.together = True
    assert questions(lambda: RUNS[run](module)) == []


@every_kind
def test_nobody_waits_in_both_directions_and_under_autocast(kind):
    module = on_meta(kind, bidirectional=True)
    assert questions(lambda: module(W, lengths=ENDS)) == []


def test_waiting_is_noticed():
    class Waits(nn.Module):
        def forward(self, u):
            for _ in range(20):
                u = u + 1
            return u * torch.tensor(2.0, device=u.device)

    u = W.clone().requires_grad_()
    assert questions(lambda: Waits()(u)) == ["tensor"]
    assert set(questions(lambda: on_meta(S4D)(W, lengths=[300, 7]))) == {"_to_copy"}
    with pytest.raises(RuntimeError, match="item"):
        questions(lambda: u / u.sum().item())


# ------------------------------------------------------------------ one graph


@every_kind
def test_one_graph_serves_every_batch(kind):
    torch.compiler.reset()
    layer, made = make(kind), []

    def backend(graph, examples):
        made.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    for batch in (2, 3, 5, 7, 4):
        u = draw(batch, 300, 3)
        close(compiled(u), layer(u), 1e-12)
    assert len(made) <= 2  # the first batch, then any
    y, x = compiled(u, layer.initial_state(4), return_state=True)
    z, end = layer(u, layer.initial_state(4), return_state=True)
    close(y, z, 1e-12)
    close(x, end, 1e-12)
