"""Every model does every kind of task; none sees what it is asked to guess."""

import pytest
import torch

from s4lite.data.task import Task
from s4lite.nn.attention import Attention
from s4lite.nn.layer import S4D
from s4lite.recipes.models import GatedAttention, build, layers, options_of

SMALL = {"d_model": 6, "n_layers": 2, "d_state": 4}


class Asked(Task):
    def __init__(self, **facts):
        given = {"name": "asked", "d_input": 3, "d_output": 5, "length": 20, "metric": "accuracy"}
        vars(self).update(given | facts)


def data(task, length=20, rows=2):
    torch.manual_seed(3)
    return torch.randint(3, (rows, length)) if task.tokens else torch.randn(rows, length, 3)


@pytest.mark.parametrize("model", layers())
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("metric", ["accuracy", "mse", "bpc", "perplexity"])
def test_shapes_and_gradients(model, tokens, metric):
    task = Asked(tokens=tokens, metric=metric)
    net = build(model, task, **SMALL)
    y = net(data(task))
    assert y.shape == ((2, 5) if metric == "accuracy" else (2, 20, 5))
    y.square().sum().backward()
    unused = [n for n, p in net.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize("model", layers())
def test_no_future_in_a_language_model(model):
    task = Asked(tokens=True, metric="bpc")
    net, u = build(model, task, **SMALL).eval(), data(task)
    other = u.clone()
    other[:, 12:] = (u[:, 12:] + 1) % 3
    assert torch.allclose(net(u)[:, :12], net(other)[:, :12], atol=1e-5)
    assert not torch.allclose(net(u)[:, 12:], net(other)[:, 12:], atol=1e-5)


@pytest.mark.parametrize("metric", ["bpc", "perplexity"])
def test_both_directions_are_refused_where_the_next_is_asked(metric):
    with pytest.raises(ValueError, match="want bidirectional=False"):
        build("s4d", Asked(tokens=True, metric=metric), bidirectional=True, **SMALL)
    assert build("s4d", Asked(metric="mse"), bidirectional=True, **SMALL)


@pytest.mark.parametrize("model", layers())
def test_padding_says_nothing(model):
    task = Asked(tokens=True)
    net, u = build(model, task, **SMALL).eval(), data(task)
    lengths = torch.tensor([20, 7])
    other = u.clone()
    other[1, 7:] = (u[1, 7:] + 1) % 3
    assert torch.allclose(net(u, lengths=lengths), net(other, lengths=lengths), atol=1e-6)


def test_how_far_baselines_look_back():
    tcn, conv = (build(m, Asked(length=300), **SMALL) for m in ("tcn", "ckconv"))
    assert tcn.stack.blocks[0].layer.receptive_field >= 300
    assert conv.stack.blocks[0].layer.l_max == 300
    short = build("tcn", Asked(length=300), levels=3, **SMALL)
    assert short.stack.blocks[0].layer.receptive_field == 8
    assert build("lstm", Asked(length=1), **SMALL) and build("tcn", Asked(length=1), **SMALL)


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="did you mean s4d"):
        build("s4dd", Asked())


def test_what_a_class_takes():
    found = options_of(S4D)
    assert found["d_state"] is int and found["bidirectional"] is bool and "self" not in found
    assert {"heads", "window", "dropout"} <= options_of(GatedAttention).keys()


def test_gated_attention_is_attention_and_a_head_that_works_place_by_place():
    torch.manual_seed(0)
    layer = GatedAttention(8, heads=2, dropout=0.0).eval()
    plain = Attention(8, heads=2).eval()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "head." not in k})
    u = torch.randn(2, 9, 8)
    assert torch.allclose(layer(u), layer.head(plain(u)), atol=1e-6)
    state, ys = layer.initial_state(2), []
    for t in range(9):
        y, state = layer.step(u[:, t], state)
        ys.append(y)
    assert torch.allclose(torch.stack(ys, 1), layer(u), atol=1e-5)
    assert torch.allclose(layer(u, lengths=[9, 4])[1, :4], layer(u)[1, :4], atol=1e-6)
    assert GatedAttention(4, dtype=torch.float64).head[2].weight.dtype == torch.float64
