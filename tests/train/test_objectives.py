"""Losses and scores as sums."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from s4lite.train.objectives import METRICS, objective

SYMBOLS = ("accuracy", "bpc", "perplexity")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(metric, *batches):
    goal = objective(metric)
    return goal.read(sum(goal.sums(*batch).double() for batch in batches))


def test_accuracy_by_hand():
    logits, y = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1])
    p = torch.softmax(logits, -1)[range(3), y]
    got = read("accuracy", (logits, y))
    assert set(got) == {"loss", "accuracy"}
    assert abs(got["loss"] + p.log().mean().item()) < 1e-6 and abs(got["accuracy"] - 2 / 3) < 1e-7


def test_bits_and_perplexity_are_the_cross_entropy_in_other_units():
    logits, y = drawn(3, 7, 11), torch.arange(21).reshape(3, 7) % 11
    nats = read("bpc", (logits, y))["loss"]
    assert abs(nats - F.cross_entropy(logits.flatten(0, 1), y.flatten()).item()) < 1e-6
    assert abs(read("bpc", (logits, y))["bpc"] - nats / math.log(2)) < 1e-12
    assert abs(read("perplexity", (logits, y))["perplexity"] - math.exp(nats)) < 1e-9


def test_uniform_guesses_over_256_bytes_are_eight_bits():
    y = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))
    assert abs(read("bpc", (torch.zeros(2, 9, 256), y))["bpc"] - 8) < 1e-5


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_forecasts_are_judged_by_their_last_steps(metric):
    output, y = drawn(2, 9, 3), drawn(2, 4, 3, seed=1)
    error = output[:, -4:] - y
    got = read(metric, (output, y))
    want = {"mse": error.square().mean().item(), "mae": error.abs().mean().item()}
    assert set(got) == {"loss", "mse", "mae"} and got["loss"] == got[metric]
    assert all(abs(got[name] - want[name]) < 1e-6 for name in want)


def test_symbols_too_are_judged_by_their_last_steps():
    logits, y = drawn(2, 9, 5), torch.tensor([[1, 2], [3, 4]])
    assert read("accuracy", (logits, y)) == read("accuracy", (logits[:, -2:], y))


def test_places_where_nothing_is_asked_do_not_count():
    logits, y = drawn(2, 5, 3), torch.tensor([[0, 1, 2, -100, -100], [1, -100, -100, -100, -100]])
    asked = y != -100
    assert read("accuracy", (logits, y)) == read("accuracy", (logits[asked], y[asked]))


@given(st.sampled_from(METRICS), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_scores_do_not_depend_on_how_batches_are_cut(metric, cuts):
    n, goal = sum(cuts), objective(metric)
    output = drawn(n, 6, 4)
    y = torch.arange(6 * n).reshape(n, 6) % 4 if metric in SYMBOLS else drawn(n, 6, 4, seed=2)
    parts = sum(
        goal.sums(a, b).double() for a, b in zip(output.split(cuts), y.split(cuts), strict=True)
    )
    whole, got = goal.read(goal.sums(output, y).double()), goal.read(parts)
    assert all(abs(whole[name] - got[name]) < 1e-5 * (1 + abs(whole[name])) for name in whole)


@pytest.mark.parametrize("metric", METRICS)
def test_the_loss_is_the_mean_and_has_a_gradient(metric):
    goal, output = objective(metric), drawn(4, 6, 3).requires_grad_()
    y = torch.zeros(4, 6, dtype=torch.int64) if metric in SYMBOLS else torch.zeros(4, 6, 3)
    loss = goal.loss(goal.sums(output, y))
    assert abs(loss.item() - goal.read(goal.sums(output, y))["loss"]) < 1e-6
    loss.backward()
    if metric == "mse":
        assert torch.allclose(output.grad, 2 * output / output.numel())
    assert output.grad.abs().sum() > 0


def test_gradcheck():
    goal, output = objective("accuracy"), drawn(3, 5).double().requires_grad_()
    y = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: goal.loss(goal.sums(x, y)), output)


def test_halves_are_summed_as_floats():
    output, y = torch.full((64, 64, 1), 3.0, dtype=torch.bfloat16), torch.zeros(64, 64, 1)
    assert objective("mse").sums(output, y).tolist() == [4096, 9 * 4096, 3 * 4096]


def test_modes():
    assert {name: objective(name).mode for name in METRICS} == {
        "accuracy": "max",
        "bpc": "min",
        "perplexity": "min",
        "mse": "min",
        "mae": "min",
    }


def test_nothing_seen_is_no_number_and_overflow_no_error():
    assert math.isnan(objective("accuracy").read(torch.zeros(3))["accuracy"])
    assert objective("perplexity").read(torch.tensor([1.0, 1e9, 0.0]))["perplexity"] > 1e300
    assert math.isnan(objective("perplexity").read(torch.tensor([1.0, math.nan, 0]))["perplexity"])


@pytest.mark.parametrize(
    ("metric", "output", "y", "message"),
    [
        ("accuracy", (3, 4), torch.zeros(2, dtype=torch.int64), "want symbols y"),
        ("accuracy", (3, 4), torch.zeros(3), "want symbols y"),
        ("bpc", (3, 5, 4), torch.zeros(3, 6, dtype=torch.int64), "want symbols y"),
        ("mse", (3, 5, 1), torch.zeros(3, 6, 1), "want as many numbers"),
        ("mse", (3, 5, 2), torch.zeros(3, 5, 1), "want as many numbers"),
        ("mae", (3, 5), torch.zeros(3), "want as many numbers"),
    ],
)
def test_shapes_that_do_not_fit(metric, output, y, message):
    with pytest.raises(ValueError, match=message):
        objective(metric).sums(torch.zeros(output), y)


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"want a metric among accuracy, bpc.*got 'f1'"):
        objective("f1")
