"""PairModel: documents are read apart and meet in the head only; the head; what is refused."""

import copy
import pickle
import re

import pytest
import torch

from s4lite import S4, SequenceModel, param_groups
from s4lite.data.retrieval import RetrievalStandIn
from s4lite.data.task import pad
from s4lite.nn.baselines import LSTM, Attention, DilatedConv
from s4lite.nn.groups import parameter_kinds
from s4lite.nn.pairs import Comparison, PairModel, check_paired

F64 = torch.float64


def make(seed=0, **options):
    torch.manual_seed(seed)
    small = {"d_input": 20, "d_output": 3, "d_model": 6, "n_layers": 2, "d_state": 4}
    return PairModel(**{**small, "embedding": True, "dtype": F64, **options}).eval()


def letters(*sizes, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 20, (n,), generator=rng) for n in sizes]


def batch_of(first, second):
    return pad([((a, b), torch.tensor(0)) for a, b in zip(first, second, strict=True)])


def close(a, b, tol=1e-12):
    assert a.shape == b.shape
    assert (a - b).detach().abs().max() <= tol * b.detach().abs().max().clamp(min=1)


# ------------------------------------------------------------------ what it computes


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_each_document_alone_then_the_head_by_hand(pool, prenorm):
    model = make(pool=pool, prenorm=prenorm, bidirectional=True)
    first, second = letters(1, 30, 7), letters(44, 2, 7, seed=2)
    u, _, lengths = batch_of(first, second)
    answers, head = model(u, lengths=lengths), model.decoder.map
    for answer, a, b in zip(answers, first, second, strict=True):
        both = [model.stack(model.encoder(x[None], "batch L"))[0] for x in (a, b)]
        a, b = (x.mean(0) if pool == "mean" else x[-1] for x in both)
        inner = head.inner.weight @ torch.cat([a, b, a - b, a * b]) + head.inner.bias
        gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        close(answer, head.weight @ gelu + head.bias)


def test_documents_of_other_pairs_and_what_stands_in_the_padding_do_not_matter():
    model = make()
    u, _, lengths = batch_of(letters(9, 4), letters(3, 12, seed=2))
    whole = model(u, lengths=lengths)
    dirty = u.where(torch.arange(12) < lengths[:, None], 19)
    assert torch.equal(model(dirty, lengths=lengths), whole)
    for i in range(2):
        close(model(u[i::2], lengths=lengths[i::2]), whole[i : i + 1])
    other = u.clone()
    other[1] = 3
    close(model(other, lengths=lengths)[:1], whole[:1])
    assert (model(other, lengths=lengths)[1] - whole[1]).abs().max() > 1e-6


def test_the_head_tells_agreement_and_no_linear_one_can():  # eq-arena-cross
    a, b = torch.tensor([[1.0, 0], [0, 1]], dtype=F64)
    head = Comparison(2, 1, dtype=F64)
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
        head.inner.weight[:, 6:] = 10.0  # the products
        head.weight.fill_(1.0)
        head.bias.fill_(-10.0)
    answers = head(torch.stack([a, b, a, b, a, b, b, a]))[:, 0]  # aa, bb, ab, ba
    assert (answers > 0).tolist() == [True, True, False, False]


def test_steps_walk_through_both_documents_at_once():
    model, (u, _, _) = make(), batch_of(letters(11, 11), letters(11, 11, seed=2))
    state, whole = model.initial_state(4), model(u)
    for k, u_t in enumerate(u.unbind(1), 1):
        y, state = model.step(u_t, state)
        close(y, model(u[:, :k]), 1e-11)
    close(y, whole, 1e-11)
    first, state = model(u[:, :5], return_state=True)
    assert first.shape == (2, 3)
    close(model(u[:, 5:], state), whole, 1e-11)


def test_numbers_instead_of_tokens_and_rate_and_gaps():
    model = make(embedding=False, d_input=2)
    u = torch.randn(6, 9, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    assert model(u).shape == (3, 3)
    close(model(u, rate=2.0), model(u, dt=torch.full((9,), 2.0, dtype=F64)), 1e-11)
    assert (model(u) - model(u, rate=2.0)).abs().max() > 1e-6


@pytest.mark.parametrize("layer", [S4, LSTM, DilatedConv, Attention])
def test_any_layer_reads_the_documents(layer):
    options = {"d_state": 4} if layer is S4 else {}
    torch.manual_seed(0)
    model = PairModel(20, 2, 8, 1, layer=layer, embedding=True, **options).eval()
    u, _, lengths = batch_of(letters(9, 4), letters(3, 12, seed=2))
    y = model(u, lengths=lengths)
    close(model(u[::2], lengths=lengths[::2]), y[:1], 1e-5)
    assert y.shape == (2, 2)


# ------------------------------------------------------------------ as a module


def test_parameters_are_those_of_a_sequence_model_but_for_the_head():
    options = {"d_state": 4, "embedding": True}
    pair, one = PairModel(98, 2, 16, 3, **options), SequenceModel(98, 2, 16, 3, **options)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(pair) - count(one) == 4 * 16 * 16 + 16
    assert isinstance(pair, SequenceModel)
    kinds = parameter_kinds(pair)
    assert kinds["decoder.map.inner.weight"] == kinds["decoder.map.weight"] == "decayed"
    assert kinds["decoder.map.inner.bias"] == kinds["decoder.map.bias"] == "plain"
    assert sum(len(g["params"]) for g in param_groups(pair, 1e-2)) == len([*pair.parameters()])


def test_gradients_reach_both_documents_and_every_parameter():
    model = make(embedding=False, d_input=2).train()
    u = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    u.requires_grad_()
    model(u).square().sum().backward()
    assert (u.grad.abs().sum((1, 2)) > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    head = Comparison(3, 2, dtype=F64)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(4), dtype=F64)
    assert torch.autograd.gradcheck(head, x.requires_grad_())


def test_copies_pickles_and_state_dicts_answer_alike():
    model, (u, _, lengths) = make(), batch_of(letters(9, 4), letters(3, 12, seed=2))
    other = make(seed=5)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(twin(u, lengths=lengths), model(u, lengths=lengths))
    with pytest.raises(ValueError, match=r"nothing was loaded into PairModel.*inner"):
        model.load_state_dict(SequenceModel(20, 3, 6, 2, d_state=4, embedding=True).state_dict())


def test_float32_is_close_to_float64_and_compiles_whole():
    model, (u, _, _) = make(), batch_of(letters(50, 50), letters(50, 50, seed=2))
    small = copy.deepcopy(model).float()
    close(small(u).double(), model(u), 1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(small, fullgraph=True, backend="eager")
    close(compiled(u), small(u), 1e-6)


def test_it_takes_the_batches_of_a_task_of_pairs(tmp_path):
    task = RetrievalStandIn(tmp_path, sizes=(6, 2, 2), length=120)
    train = task.splits().train
    u, y, lengths = task.collate([train[i] for i in range(3)])
    torch.manual_seed(0)
    model = PairModel(task.d_input, task.d_output, 8, 1, embedding=task.tokens, d_state=4).eval()
    assert model(u, lengths=lengths).shape == (len(y), 2)


# ------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("pool", [None, "max", 3])
def test_unknown_pooling(pool):
    with pytest.raises(ValueError, match=f'want pool "mean" or "last".*{re.escape(repr(pool))}'):
        make(pool=pool)


def test_rows_that_are_no_pairs():
    model = make()
    u = torch.stack(letters(5, 5, 5))
    with pytest.raises(ValueError, match=r"want rows of pairs.*got 3"):
        model(u)
    with pytest.raises(ValueError, match=r"want rows of pairs.*got 3"):
        model.step(u[:, 0], model.initial_state(3))
    check_paired(u[:2])


def test_bad_input_is_refused_as_a_sequence_model_refuses_it():
    model, u = make(), torch.stack(letters(5, 5))
    with pytest.raises(TypeError, match=r"want tokens.*got torch.float32"):
        model(u.float())
    with pytest.raises(TypeError, match=r"want tokens.*got list"):
        model(u.tolist())
    with pytest.raises(ValueError, match=r"want tokens in 0 \.\. 19"):
        model(u + 20)
    with pytest.raises(ValueError, match="none empty"):
        model(u[:0])
    with pytest.raises(ValueError, match="want"):
        model(u, lengths=[5])
    with pytest.raises(ValueError, match="want"):
        model(u, lengths=[5, 6])
    for name in ("d_output", "d_model", "n_layers"):
        with pytest.raises(ValueError, match=name):
            make(**{name: 0})
