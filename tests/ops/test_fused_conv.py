"""Convolution in blocks: what it computes, what it keeps, and that it never depends on the cuts."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s4lite.ops import fused_conv as module
from s4lite.ops.conv import causal_conv, causal_conv_naive, two_sided_conv
from s4lite.ops.fused_conv import fused_conv

F32, F64 = torch.float32, torch.float64
SHAPES = [  # u, K, D, K_backward
    ((2, 3, 20), (3, 20), (3,), None),
    ((2, 3, 20), (3, 20), (3,), (3, 20)),
    ((20,), (7,), (), (9,)),
    ((2, 3, 9), (3, 30), None, (3, 30)),
    ((2, 1, 9), (3, 9), (3,), None),
    ((3, 9), (2, 1, 9), (2, 3), None),
    ((1,), (4,), (5,), (3,)),
    ((3, 1), (3, 1), (3,), None),
    ((2,), (2,), None, (1,)),
    ((2, 3, 2, 5), (2, 5), (1,), None),
    ((2, 5), (2, 3, 2, 5), (3, 1), (2, 3, 2, 2)),
]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(14)


@pytest.fixture(params=["whole", "cut"])
def blocks(request, monkeypatch):
    """In blocks as they are, and in blocks of a single signal."""
    monkeypatch.setattr(module, "_SMALL", 0)
    if request.param == "cut":
        monkeypatch.setattr(module, "_BLOCK", 1)
        monkeypatch.setattr(module, "_ROWS", 1)


def draw(rng, shape, dtype=F64):
    return None if shape is None else torch.randn(shape, generator=rng, dtype=dtype)


def call(u, K, D=None, K_backward=None):
    return fused_conv(u, K, D, K_backward=K_backward)


def truth(u, K, D=None, K_backward=None):
    """The sums as written, in float64."""
    u, K, D, K_backward = (z if z is None else z.double() for z in (u, K, D, K_backward))
    y = causal_conv_naive(u, K)
    if K_backward is not None:
        y = y + causal_conv_naive(u.flip(-1), F.pad(K_backward, (1, 0))).flip(-1)
    return y if D is None else y + D[..., None] * u


def leaves(args, dtype=None):
    return [
        z if z is None else z.detach().to(dtype or z.dtype, copy=True).requires_grad_()
        for z in args
    ]


def gradients(conv, args, g, dtype=None):
    args = leaves(args, dtype)
    y = conv(*args)
    return y.detach(), torch.autograd.grad(y, [z for z in args if z is not None], g.to(y.dtype))


def close(got, want, tol=1e-12):
    assert got.shape == want.shape
    gap = (got - want).abs().max()
    assert gap <= tol * want.abs().max(), f"off by {gap:.1e}"


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("shapes", SHAPES)
def test_is_the_sum_as_written(rng, blocks, shapes):
    args = [draw(rng, s) for s in shapes]
    y = call(*args)
    assert y.dtype == F64
    close(y, truth(*args))


@pytest.mark.parametrize("L", [1, 2, 99, 1023])
@pytest.mark.parametrize("M", [1, 50, 1023, 2000])
def test_ugly_lengths(rng, monkeypatch, L, M):
    monkeypatch.setattr(module, "_SMALL", 0)
    u, K, D, back = draw(rng, (2, 3, L)), draw(rng, (3, M)), draw(rng, (3,)), draw(rng, (3, M))
    close(call(u, K, D), truth(u, K, D))
    close(call(u, K, D, back), truth(u, K, D, back))
    close(call(u, K), causal_conv(u, K))
    if M >= L:
        close(call(u, K, None, back), two_sided_conv(u, K, back))


@pytest.mark.parametrize("shapes", SHAPES)
def test_gradients(rng, blocks, shapes):
    args = leaves([draw(rng, s) for s in shapes])
    assert gradcheck(call, args)
    assert gradgradcheck(call, args)


def test_gradients_are_those_of_the_sums_as_written(rng, blocks):
    args = [draw(rng, s) for s in ((4, 5, 130), (5, 130), (5,), (5, 60))]
    g = draw(rng, (4, 5, 130))
    for got, want in zip(gradients(call, args, g)[1], gradients(truth, args, g)[1], strict=True):
        close(got, want)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1), (2, 3)])
def test_only_what_is_asked_for(rng, blocks, which):
    args = [draw(rng, s) for s in ((2, 3, 20), (3, 20), (3,), (3, 20))]
    every = gradients(call, args, torch.ones(2, 3, 20))[1]
    args = [z.requires_grad_(i in which) for i, z in enumerate(args)]
    call(*args).sum().backward()
    for i, z in enumerate(args):
        assert (z.grad is not None) == (i in which)
        if i in which:
            close(z.grad, every[i])


def test_second_derivatives_of_one_argument(rng, blocks):
    for i in range(4):
        args = [draw(rng, s) for s in ((2, 3, 6), (3, 6), (3,), (3, 4))]

        def one(z, i=i, args=args):
            return call(*args[:i], z, *args[i + 1 :]).square()

        assert gradgradcheck(one, args[i].requires_grad_())


# ---------------------------------------------------------------- cuts, strides, order


@pytest.mark.parametrize("block, rows", [(1, 1), (1, 3), (1 << 12, 4), (1 << 14, 1), (1 << 30, 4)])
def test_the_cuts_do_not_matter(rng, monkeypatch, block, rows):
    args = [draw(rng, s) for s in ((3, 7, 99), (7, 99), (7,), (7, 99))]
    g = draw(rng, (3, 7, 99))
    monkeypatch.setattr(module, "_SMALL", 0)
    y, want = gradients(call, args, g)
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_ROWS", rows)
    other, got = gradients(call, args, g)
    close(other, y, 1e-14)
    for a, b in zip(got, want, strict=True):
        close(a, b, 1e-14)


def test_small_signals_take_the_plain_form(rng, monkeypatch):
    """Same sums either way; only large ones pass through blocks."""
    args = [draw(rng, s) for s in ((2, 3, 20), (3, 20), (3,), (3, 20))]
    g, seen = draw(rng, (2, 3, 20)), []
    forward = module._forward
    monkeypatch.setattr(module, "_forward", lambda *a: seen.append(1) or forward(*a))
    y, want = gradients(call, args, g)
    assert not seen
    monkeypatch.setattr(module, "_SMALL", 119)
    other, got = gradients(call, args, g)
    assert seen
    close(other, y, 1e-14)
    for a, b in zip(got, want, strict=True):
        close(a, b, 1e-14)


def test_cut_covers_every_entry_once():
    for sizes in ([1], [5], [3, 4], [2, 3, 7], []):
        for room in (0, 1, 2, 5, 7, 13, 1000):
            count = torch.zeros(sizes)
            for box in module._cut(sizes, room):
                count[box] += 1
                assert count[box].numel() <= max(1, room)
            assert (count == 1).all()


def strided(rng, kind, shape, dtype):
    *batch, L = shape
    if kind == "transposed":
        return draw(rng, (*batch[:-1], L, batch[-1]), dtype).mT
    if kind == "every other":
        return draw(rng, (*batch, 2 * L), dtype)[..., ::2]
    return draw(rng, (*batch[:-1], 1, L), dtype).expand(shape)


@pytest.mark.parametrize("kind", ["transposed", "every other", "expanded"])
def test_strided_signals(rng, blocks, kind):
    u, g = strided(rng, kind, (2, 3, 40), F64), strided(rng, kind, (2, 3, 40), F64)
    args = [u, draw(rng, (40, 3)).mT, draw(rng, (3,)), draw(rng, (3, 40))]
    y, got = gradients(call, args, g)
    assert y.is_contiguous() == (kind != "transposed")  # u's layout, where it has one
    plain = [z.contiguous() for z in args]
    want_y, want = gradients(call, plain, g.contiguous())
    close(y, want_y, 1e-14)
    for a, b in zip(got, want, strict=True):
        close(a, b, 1e-14)


def test_same_every_time(rng, blocks):
    args = [draw(rng, s, F32) for s in ((4, 16, 1023), (16, 1023), (16,))]
    g = draw(rng, (4, 16, 1023), F32)
    y, first = gradients(call, args, g)
    for _ in range(3):
        again, more = gradients(call, args, g)
        assert torch.equal(y, again)
        assert all(torch.equal(a, b) for a, b in zip(first, more, strict=True))


def test_arguments_stay_as_they_are(rng, blocks):
    args = leaves([draw(rng, s) for s in ((2, 3, 20), (3, 20), (3,), (3, 20))])
    before = [z.detach().clone() for z in args]
    g = draw(rng, (2, 3, 20))
    kept = g.clone()
    torch.autograd.grad(call(*args), args, g)
    assert torch.equal(g, kept)
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))


# ---------------------------------------------------------------- digits


@pytest.mark.parametrize("L", [99, 1024, 4097])
def test_float32_is_as_good_as_causal_conv(rng, blocks, L):
    args = [draw(rng, s) for s in ((4, 8, L), (8, L), (8,))]
    args[1] = args[1] * torch.exp(-torch.arange(L) * torch.logspace(-3, -1, 8)[:, None])
    args = [z.float() for z in args]
    g = draw(rng, (4, 8, L), F32)

    def twin(u, K, D):
        return causal_conv(u, K) + D[:, None] * u

    y, d = gradients(call, args, g)
    twin_y, twin_d = gradients(twin, args, g)
    true_y, true_d = gradients(twin, args, g, F64)
    for got, other, want in zip((y, *d), (twin_y, *twin_d), (true_y, *true_d), strict=True):
        assert got.dtype == F32
        assert (got - want).abs().max() <= 2 * (other - want).abs().max()
        assert (got - want).norm() <= 2 * (other - want).norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(rng, blocks, dtype):
    args = [draw(rng, s, F32) for s in ((4, 8, 300), (8, 300), (8,), (8, 300))]
    args[0] = args[0].to(dtype)
    y, (du, dK, dD, back) = gradients(call, args, draw(rng, (4, 8, 300), F32).to(dtype))
    assert (y.dtype, du.dtype, dK.dtype, dD.dtype, back.dtype) == (dtype, dtype, F32, F32, F32)
    exact = truth(*args)
    once = (exact.to(dtype) - exact).abs().max()
    assert (y - exact).abs().max() < 1.01 * once
    half = [z.to(dtype) for z in args]
    assert all(z.dtype == dtype for z in gradients(call, half, torch.ones(4, 8, 300))[1])
    assert call(args[0].float(), half[1]).dtype == F32


def test_the_direct_path_does_not_pass_through_the_transform(blocks):
    """A click that D amplifies leaves the quiet samples after it alone."""
    u = torch.full((1024,), 1e-6)
    u[10] = 1.0
    K, D = torch.zeros(1024), torch.tensor(3.0)
    assert torch.equal(fused_conv(u, K, D), 3 * u)
    folded = causal_conv(u, F.pad(D[None], (0, 1023)))
    assert (folded - 3 * u).abs().max() > 1e-8  # the same in one kernel: digits are lost


def test_nan_stays_in_its_channel(rng, blocks):
    u, K = draw(rng, (2, 3, 20)), draw(rng, (3, 20))
    u[1, 2, 4] = torch.nan
    y = fused_conv(u, K)
    assert y[1, 2].isnan().all()
    assert y[0].isfinite().all() and y[1, :2].isfinite().all()


# ---------------------------------------------------------------- memory


class Alive(TorchDispatchMode):
    """The most bytes, made under it, that were alive at once."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.seen = 0, 0, set()

    def drop(self, key, size):
        self.now -= size
        self.seen.discard(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for z in tree_leaves(out):
            if not isinstance(z, torch.Tensor):
                continue
            storage = z.untyped_storage()
            key = storage._cdata
            if key not in self.seen and not func.is_view:
                self.seen.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.drop, key, storage.nbytes())
                self.most = max(self.most, self.now)
        return out


@pytest.mark.parametrize("transposed", [False, True])
def test_memory(rng, transposed):
    """Forward: the output and a few blocks. Backward: the derivatives and a few blocks."""
    H, L = 64, 8192
    u = draw(rng, (1, L, H), F32).mT if transposed else draw(rng, (1, H, L), F32)
    args = leaves([u, draw(rng, (H, L), F32), draw(rng, (H,), F32)])
    size = 4 * H * L
    with Alive() as alive:
        y = call(*args)
        assert alive.most < size + 6 * module._BLOCK
    del alive
    g = torch.ones_like(y)
    with Alive() as alive:
        torch.autograd.grad(y, args, g)
    assert alive.most < 2 * size + 8 * module._BLOCK


def test_keeps_nothing_but_its_arguments(rng, blocks):
    args = leaves([draw(rng, s) for s in ((2, 3, 20), (3, 20), (3,), (3, 20))])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda z: kept.append(z) or z, lambda z: z):
        call(*args)
    own = {z.untyped_storage().data_ptr() for z in args}
    assert {z.untyped_storage().data_ptr() for z in kept} <= own


# ---------------------------------------------------------------- transforms of torch


@pytest.mark.parametrize(
    "shapes", [((2, 3, 40), (3, 40), (3,), None), ((2, 3, 9), (3, 5), None, (3, 9))]
)
def test_compiles(rng, shapes):
    torch._dynamo.reset()
    args = [draw(rng, s) for s in shapes]
    g = draw(rng, shapes[0])
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    y, got = gradients(compiled, args, g)
    want_y, want = gradients(call, args, g)
    close(y, want_y)
    for a, b in zip(got, want, strict=True):
        close(a, b)


def test_vmap_and_grad(rng):
    u, K, D = draw(rng, (4, 3, 20)), draw(rng, (3, 20)), draw(rng, (3,))
    close(torch.vmap(fused_conv, (0, None, None))(u, K, D), fused_conv(u, K, D))
    each = torch.vmap(torch.func.grad(lambda K, u: call(u, K, D).square().sum()), (None, 0))(K, u)
    K = K.requires_grad_()
    for d, u_i in zip(each, u, strict=True):
        close(d, torch.autograd.grad(call(u_i, K, D).square().sum(), K)[0])
    tangent = draw(rng, (4, 3, 20))
    _, moved = torch.func.jvp(lambda u: call(u, K, D), (u,), (tangent,))
    close(moved, call(tangent, K, D))


def test_fake_and_meta_tensors():
    u, K = torch.empty(2, 3, 99, device="meta"), torch.empty(3, 99, device="meta")
    assert call(u, K, torch.empty(3, device="meta")).shape == (2, 3, 99)
    u = torch.empty(99, 3, 999, device="meta")
    assert call(u, K, torch.empty(3, device="meta")).shape == u.shape
    with torch._subclasses.FakeTensorMode():
        u = torch.empty(20, 30, 999, requires_grad=True)
        y = call(u, torch.empty(30, 99))
        assert torch.autograd.grad(y.sum(), u)[0].shape == u.shape


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"u": 3.0}, TypeError, "want u as a torch.Tensor, got float"),
        ({"D": 1.0}, TypeError, "want D as a torch.Tensor, got float"),
        ({"u": torch.ones(2, 3, 8, dtype=torch.int64)}, TypeError, "want u of a floating"),
        (
            {"u": torch.ones(2, 3, 8, dtype=torch.complex64)},
            TypeError,
            "want u real, got torch.comp",
        ),
        ({"K": torch.ones(3, 8, dtype=torch.complex64)}, TypeError, "want K real"),
        ({"D": torch.ones(3, dtype=torch.complex64)}, TypeError, "want D real"),
        (
            {"K_backward": torch.ones(3, 8, dtype=torch.complex64)},
            TypeError,
            "want K_backward real",
        ),
        ({"u": torch.ones(2, 3, 0)}, ValueError, "no axis empty"),
        ({"u": torch.tensor(1.0)}, ValueError, "want u"),
        ({"K": torch.ones(3, 0)}, ValueError, "no axis empty"),
        ({"K_backward": torch.ones(3, 0)}, ValueError, "no axis empty"),
        ({"K": torch.ones(4, 8)}, ValueError, "want leading axes that broadcast"),
        ({"K_backward": torch.ones(8)}, ValueError, "want K and K_backward with the same leading"),
        ({"D": torch.ones(4)}, ValueError, r"want D \(...\) that fits u \(..., L\)"),
        ({"D": torch.ones(0)}, ValueError, r"want D \(...\) that fits"),
        ({"D": torch.ones(3, device="meta")}, ValueError, "want all tensors on one device"),
    ],
)
def test_bad_input(change, error, message):
    good = {"u": torch.ones(2, 3, 8), "K": torch.ones(3, 8), "D": torch.ones(3)}
    good["K_backward"] = torch.ones(3, 8)
    call(**good)
    with pytest.raises(error, match=message):
        call(**(good | change))
