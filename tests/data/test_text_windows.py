"""Windows over a text: each symbol once, with context; the data set made of them."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from s4lite.data.task import Batch
from s4lite.data.windows import TextWindows, scored_once, side_by_side


def same(batch):
    return batch


def opened():
    return np.arange(100, dtype=np.uint8)


@pytest.mark.parametrize(("n", "length"), [*itertools.product((1, 2, 99, 1023), (1, 2, 50, 99))])
def test_each_symbol_is_asked_for_once(n, length):
    if n < length:
        with pytest.raises(ValueError, match=f"want n >= {length}"):
            scored_once(n, length)
        return
    for context in {0, 1, length // 2, length - 1} - {length}:
        starts, first = scored_once(n, length, context)
        asked = np.zeros(n, int)
        for a, f in zip(starts, first, strict=True):
            assert 0 <= a <= n - length and 0 <= f < length
            asked[a + f : a + length] += 1
            assert a == 0 or f >= context
        assert (asked == 1).all() and len(starts) == 1 + -(-(n - length) // (length - context))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((10, 5, 5), ValueError, "want context >= 0 and <= 4"),
        ((10, 5, -1), ValueError, "want context >= 0"),
        ((10, 0), ValueError, "want length >= 1"),
        ((10.0, 5), TypeError, "want n as an int"),
    ],
)
def test_scored_once_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        scored_once(*arguments)


@pytest.mark.parametrize("stride", [None, 1, 3, 10, 40])
def test_side_by_side(stride):
    starts = side_by_side(99, 10, stride)
    step = stride or 10
    assert starts.tolist() == [a for a in range(0, 99, step) if a + 10 <= 99]
    assert 99 - (starts[-1] + 10) < step
    with pytest.raises(ValueError, match="want n >= 100"):
        side_by_side(99, 100, stride)


def test_items_are_one_ahead():
    text = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)
    starts, first = scored_once(63, 16, 5)
    windows = TextWindows(text, starts, 16, first)
    for k, (a, f) in enumerate(zip(starts, first, strict=True)):
        u, y = windows[k]
        assert u.dtype == y.dtype == torch.int64 and u.shape == y.shape == (16,)
        assert u.tolist() == text[a : a + 16].tolist()
        assert y.tolist() == [-100] * f + text[a + f + 1 : a + 17].tolist()
    assert torch.equal(windows[-1][0], windows[len(windows) - 1][0])
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_batches_at_once_are_the_items():
    windows = TextWindows(opened, *scored_once_arguments(99, 7, 3))
    batch = windows.__getitems__([4, 0, 4])
    assert isinstance(batch, Batch) and batch.lengths is None
    for row, k in enumerate([4, 0, 4]):
        u, y = windows[k]
        assert torch.equal(batch.u[row], u) and torch.equal(batch.y[row], y)
    assert batch.u.is_contiguous() and batch.u.data_ptr() != batch.y.data_ptr()
    batch.y[:] = 7  # what is handed out is a copy
    assert torch.equal(windows[4][0], windows.__getitems__([4]).u[0])
    assert opened()[5] == 5


def scored_once_arguments(n, length, context):
    starts, first = scored_once(n, length, context)
    return starts, length, first


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_processes_open_the_text_themselves(workers):
    windows = TextWindows(opened, *scored_once_arguments(99, 8, 2))
    loader = DataLoader(windows, 3, num_workers=workers, collate_fn=same)
    asked = torch.cat([batch.y[batch.y >= 0] for batch in loader])
    assert asked.tolist() == list(range(1, 100))


def test_a_copy_takes_no_data_along():
    windows = TextWindows(opened, side_by_side(99, 10), 10)
    assert len(windows) == 9 and "_symbols" in vars(windows)
    copy = pickle.loads(pickle.dumps(windows))
    assert "_symbols" not in vars(copy) and torch.equal(copy[8][1], windows[8][1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": 0}, ValueError, "want length >= 1"),
        ({"length": 5.0}, TypeError, "want length as an int"),
        ({"starts": np.array([0.0, 5.0])}, TypeError, r"want starts \(K,\) of ints, got float64"),
        ({"starts": np.array([[0, 5]])}, TypeError, r"want starts \(K,\) of ints"),
        ({"first": np.array([0])}, ValueError, "want first for each of 2 windows, got 1"),
        ({"first": np.array([0, 11])}, ValueError, "want first from 0 to 10, got 0 to 11"),
        ({"first": np.array([-1, 0])}, ValueError, "want first from 0 to 10, got -1 to 0"),
        ({"first": np.array([0.5, 0.5])}, TypeError, r"want first \(K,\) of ints"),
    ],
)
def test_windows_are_checked(change, error, message):
    arguments = {"starts": np.array([0, 20]), "length": 10, "first": np.array([0, 3])}
    assert len(TextWindows(opened, **arguments)) == 2
    with pytest.raises(error, match=message):
        TextWindows(opened, **(arguments | change))


@pytest.mark.parametrize("starts", [[-1], [0, 91], [90, 95, 0]])
def test_windows_must_lie_in_the_text(starts):
    with pytest.raises(ValueError, match="want windows of 10 inside 99 symbols"):
        TextWindows(opened, np.array(starts), 10)
    TextWindows(opened, np.array([0, 89]), 10)
