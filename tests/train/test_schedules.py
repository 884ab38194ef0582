"""Factors of the learning rates."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s4lite.train.schedules import constant, cosine


def cosine_naive(total, warmup, floor):
    """Step by step, as a table."""
    table = [(k + 1) / warmup for k in range(warmup)]
    for k in range(total - warmup):
        table.append(floor + (1 - floor) * math.cos(math.pi / 2 * k / (total - warmup)) ** 2)
    return [*table, floor]


@pytest.mark.parametrize(("total", "warmup", "floor"), [(1, 0, 0), (7, 3, 0.1), (99, 98, 0)])
def test_cosine_against_a_table(total, warmup, floor):
    for step, want in enumerate(cosine_naive(total, warmup, floor)):
        assert abs(cosine(step, total, warmup, floor) - want) < 1e-12


@given(st.integers(1, 300), st.data())
def test_cosine_rises_to_one_falls_to_its_floor_and_stays(total, drawn):
    warmup = drawn.draw(st.integers(0, total - 1))
    floor = drawn.draw(st.floats(0, 1))
    f = [cosine(k, total, warmup, floor) for k in range(total + 3)]
    assert all(floor - 1e-12 <= x <= 1 or k < warmup for k, x in enumerate(f))
    assert max(f) == f[warmup] == 1 and f[0] > 0
    assert all(a < b for a, b in pairwise(f[:warmup]))
    assert all(a >= b for a, b in pairwise(f[warmup:]))
    assert f[total:] == [floor] * 3


def test_cosine_without_warmup_has_half_of_all_steps():
    assert abs(sum(cosine(k, 1000) for k in range(1000)) / 1000 - 0.5) < 1e-3


def test_cosine_is_torchs_behind_the_warmup():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.25)
    for step in range(51):
        assert abs(optimizer.param_groups[0]["lr"] - cosine(step, 50, floor=0.25)) < 1e-9
        optimizer.step(), theirs.step()


def test_constant():
    assert [constant(k) for k in (0, 1, 10**9)] == [1, 1, 1]
    assert [constant(k, 4) for k in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "want step as an int, got float", (1.0, 10)),
        (TypeError, "want total as an int, got bool", (1, True)),
        (ValueError, "want step >= 0, got -1", (-1, 10)),
        (ValueError, "want warmup < total", (0, 10, 10)),
        (ValueError, "want warmup < total", (0, 0)),
        (ValueError, "0 <= floor <= 1", (0, 10, 0, 1.5)),
        (ValueError, "0 <= floor <= 1", (0, 10, 0, math.nan)),
    ],
)
def test_bad_input(error, message, arguments):
    with pytest.raises(error, match=message):
        cosine(*arguments)


def test_bad_warmup_of_constant():
    with pytest.raises(ValueError, match="want warmup >= 0"):
        constant(3, -2)
