"""S4 in the place of self-attention: stock Transformer blocks, masks, fast paths, files."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from walking import close, draw

from s4lite.nn.attention_place import AsAttention, check_mask
from s4lite.nn.baselines import Attention
from s4lite.nn.layer import S4, S4D
from s4lite.nn.lssl import LSSL
from s4lite.nn.model import S4Block

F32, F64 = torch.float32, torch.float64
D, L = 8, 20
LENGTHS = [20, 11, 1]
PADDING = torch.arange(L) >= torch.tensor(LENGTHS)[:, None]  # True: not a sample
CAUSAL = nn.Transformer.generate_square_subsequent_mask(L, dtype=F64)


def place(layer=S4, *, seed: int = 0, batch_first: bool = True, **options) -> AsAttention:
    torch.manual_seed(seed)
    return AsAttention(layer(D, 8, **{"dtype": F64, **options}), batch_first=batch_first)


def block(kind=nn.TransformerEncoderLayer, layer=S4, batch_first: bool = True, **options):
    torch.manual_seed(1)
    built = kind(D, 4, 16, 0.0, batch_first=batch_first, **{"dtype": F64, **options})
    built.self_attn = place(layer, batch_first=batch_first)
    return built


# ------------------------------------------------------------------ what it computes


@pytest.mark.parametrize("layer", [S4, S4D, LSSL])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_encoder_layer_is_its_definition(layer, norm_first, training):
    net = block(layer=layer, norm_first=norm_first, activation="gelu").train(training)
    u, inner = draw(3, L, D), net.self_attn.layer
    ff = lambda x: net.linear2(nn.functional.gelu(net.linear1(x)))  # noqa: E731
    if norm_first:
        x = u + inner(net.norm1(u))
        want = x + ff(net.norm2(x))
    else:
        x = net.norm1(u + inner(u))
        want = net.norm2(x + ff(x))
    close(net(u), want)
    with torch.no_grad():  # where the fast path would strike
        close(net(u), want)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_encoder_with_padding(training, nested, grad):
    """Padding full of garbage: each row as if it were alone, in every mode of the encoder."""
    torch.manual_seed(0)
    stock = nn.TransformerEncoderLayer(D, 4, 16, 0.0, batch_first=True, dtype=F64)
    net = nn.TransformerEncoder(stock, 2, enable_nested_tensor=nested).train(training)
    for i, each in enumerate(net.layers):
        each.self_attn = place(seed=i)
    u = draw(3, L, D).masked_fill(PADDING[..., None], 1e3)
    with torch.set_grad_enabled(grad):
        for mask in (PADDING, torch.zeros(3, L, dtype=F64).masked_fill(PADDING, -torch.inf)):
            y = net(u, src_key_padding_mask=mask)
            assert type(y) is Tensor and not y.is_nested
            for b, n in enumerate(LENGTHS):
                close(y[b, :n], net(u[b : b + 1, :n])[0], 1e-10)


def test_encoder_built_around_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = nn.TransformerEncoder(block(), 2, enable_nested_tensor=False).eval()
    with torch.no_grad():
        y = net(draw(3, L, D), src_key_padding_mask=PADDING)
    assert y.shape == (3, L, D)
    assert net.layers[0].self_attn.layer is not net.layers[1].self_attn.layer


def test_decoder_layer():
    net, u, memory = block(nn.TransformerDecoderLayer).eval(), draw(3, L, D), draw(3, 5, D, seed=2)
    plain = net(u, memory)
    close(net(u, memory, tgt_mask=CAUSAL, tgt_is_causal=True), plain)
    close(net(u, memory, tgt_mask=CAUSAL), plain)
    later = u.clone()
    later[:, 12:] += 1
    close(net(later, memory)[:, :12], plain[:, :12])
    padded = net(u, memory, tgt_key_padding_mask=PADDING)
    close(padded[1, :11], net(u[1:2, :11], memory[1:2])[0], 1e-10)


def test_time_first_and_without_a_batch():
    u = draw(3, L, D)
    want = block()(u)
    close(block(batch_first=False)(u.transpose(0, 1)).transpose(0, 1), want)
    for first in (True, False):
        close(block(batch_first=first)(u[1]), want[1])
    put, row = place(), u[1]
    close(put(row, row, row, key_padding_mask=PADDING[1])[0][:11], put.layer(u[1:2, :11])[0], 1e-10)


def test_the_interface_of_attention():
    put, u = place(), draw(3, L, D)
    stock = nn.MultiheadAttention(D, 4, batch_first=True, dtype=F64)
    arguments = {"key_padding_mask": PADDING, "need_weights": False, "is_causal": False}
    assert stock(u, u, u, **arguments)[0].shape == put(u, u, u, **arguments)[0].shape
    y, weights = put(u, u, u, attn_mask=CAUSAL, average_attn_weights=False)
    assert weights is None and torch.equal(y, put.layer(u))
    heads = CAUSAL.expand(3 * 4, L, L)  # a mask for every head
    assert torch.equal(put(u, u, u, attn_mask=heads)[0], y)
    assert torch.equal(put(u, u, u, attn_mask=CAUSAL < 0)[0], y)
    assert torch.equal(put(u, u, u, is_causal=True)[0], y)


def test_gradients_reach_every_parameter_and_no_padding():
    net, u = block(), draw(3, L, D).requires_grad_()
    net(u, src_key_padding_mask=PADDING).where(~PADDING[..., None], 0).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    assert (u.grad[1, 11:] == 0).all() and (u.grad[1, :11] != 0).any()


def test_copies_files_and_half_built_nets(tmp_path):
    net, u = block().eval(), draw(3, L, D)
    want = net(u)
    assert torch.equal(copy.deepcopy(net)(u), want)
    assert torch.equal(pickle.loads(pickle.dumps(net))(u), want)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = block(layer=S4)
    for p in other.parameters():
        nn.init.constant_(p, 0.1)
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(other.eval()(u), want)
    assert {k.split(".")[1] for k in net.state_dict() if k.startswith("self_attn")} == {"layer"}
    close(copy.deepcopy(net).float()(u.float()).double(), want, 1e-4)


def test_compiles_to_one_graph_and_exports():
    net, u = block().eval(), draw(3, L, D)
    whole = torch.compile(net, fullgraph=True, backend="aot_eager")
    close(whole(u), net(u))
    padded = torch.compile(net, fullgraph=True, backend="aot_eager")(u, None, PADDING)
    close(padded[1, :11], net(u, None, PADDING)[1, :11])
    program = torch.export.export(net, (u,))
    close(program.module()(u), net(u))


def test_masks_that_come_late_to_a_compiled_encoder():
    """Sizes have become symbols by then, and the first mask's have not."""
    torch.compiler.reset()
    net, u = block().eval(), draw(3, L, D)
    whole = torch.compile(net, fullgraph=True, backend="aot_eager")
    for part in (u[:2, :12], u, u[:, :15]):
        close(whole(part), net(part))
    close(whole(u, CAUSAL, is_causal=True), net(u))
    for n in (L, 13):
        got, want = (f(u[:, :n], None, PADDING[:, :n]) for f in (whole, net))
        close(got, want)


def test_autocast():
    net = block().float().eval()
    u = draw(3, L, D, dtype=F32)
    with torch.no_grad():
        want = net(u)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            close(net(u).float(), want, 0.05)
            close(net(u, src_key_padding_mask=PADDING).float()[0], want[0], 0.05)


def test_it_learns():
    """A block that must say what came three samples ago; attention without positions cannot."""
    torch.manual_seed(3)
    net = block()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        u = draw(8, L, D, seed=step)
        loss = (net(u) - u.roll(3, 1))[:, 3:].square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


# ------------------------------------------------------------------ what it refuses

U = draw(3, L, D)
HOLE = PADDING.clone()
HOLE[0, 4] = True
LEFT = PADDING.flip(1)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"key_padding_mask": HOLE}, ValueError, "to mask the ends of sequences"),
        ({"key_padding_mask": LEFT}, ValueError, "to mask the ends of sequences"),
        ({"key_padding_mask": PADDING | True}, ValueError, "want lengths from 1"),
        ({"key_padding_mask": PADDING[:2]}, ValueError, r"want key_padding_mask \(3, 20\)"),
        ({"key_padding_mask": PADDING.long()}, TypeError, "bool or floating tensor"),
        ({"key_padding_mask": [3, 2]}, TypeError, "bool or floating tensor, got list"),
        ({"attn_mask": CAUSAL.T}, ValueError, "want attn_mask None or causal"),
        ({"attn_mask": torch.zeros(L, L)}, ValueError, "want attn_mask None or causal"),
        ({"attn_mask": CAUSAL * 0}, ValueError, "want attn_mask of 0 and -inf, got nan"),
        ({"attn_mask": CAUSAL + 0.5}, ValueError, "of 0 and -inf, got 0.5"),
        ({"key_padding_mask": PADDING * -1.0}, ValueError, "of 0 and -inf, got -1"),
        ({"attn_mask": CAUSAL[:5, :5]}, ValueError, r"want attn_mask \(20, 20\)"),
        ({"attn_mask": CAUSAL.expand(4, L, L)}, ValueError, "want attn_mask"),
        ({"attn_mask": CAUSAL.long()}, TypeError, "want attn_mask as a bool or floating"),
    ],
)
def test_refused_masks(options, error, said):
    with pytest.raises(error, match=said):
        place()(U, U, U, **options)


def test_refused_use():
    put, both = place(), place(bidirectional=True)
    for key, value in ((U + 1, U), (U, U.clone())):
        with pytest.raises(ValueError, match="want self-attention"):
            put(U, key, value)
    assert both(U, U, U, key_padding_mask=PADDING)[0].shape == U.shape
    for options in ({"is_causal": True}, {"attn_mask": CAUSAL}):
        with pytest.raises(ValueError, match="hears the future"):
            both(U, U, U, **options)
    inside = S4Block(D, layer=S4, d_state=8, bidirectional=True, dtype=F64)
    for layer in (inside, nn.Sequential(both.layer)):  # not the layer itself says so, but a part
        with pytest.raises(ValueError, match="hears the future"):
            AsAttention(layer)(U, U, U, attn_mask=CAUSAL)
    narrow = U[..., :4]
    with pytest.raises(ValueError, match=r"want u \(batch, L, d_model\)"):
        put(narrow, narrow, narrow)
    with pytest.raises(TypeError, match=r"want layer as an nn\.Module, got str"):
        AsAttention("S4")
    with pytest.raises(TypeError, match="want batch_first as a bool"):
        AsAttention(put.layer, batch_first=1)
    check_mask("m", PADDING, ((3, L),))


def test_attention_itself_may_stand_there():
    """Any layer with the house's interface will do."""
    put = AsAttention(Attention(D, dtype=F64)).eval()
    assert torch.equal(put(U, U, U)[0], put.layer(U))
