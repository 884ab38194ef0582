"""Batches, splits, and what every task says of itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data.files import MissingData, Source
from s4lite.data.task import Batch, Splits, Task, pad, split_at

# ------------------------------------------------------------------ pad


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sampled_from([None, 1, 3]))
def test_pad_keeps_every_sequence(lengths, d):
    rng = torch.Generator().manual_seed(sum(lengths))
    if d is None:
        rows = [torch.randint(1, 99, (n,), generator=rng) for n in lengths]
    else:
        rows = [torch.randn(n, d, generator=rng) + 9 for n in lengths]
    batch = pad([(u, i) for i, u in enumerate(rows)])
    assert batch.u.dtype == rows[0].dtype and batch.y.tolist() == list(range(len(rows)))
    assert (batch.lengths is None) == (len(set(lengths)) == 1)
    assert batch.lengths is None or batch.lengths.tolist() == lengths
    for u, row in zip(batch.u, rows, strict=True):
        assert torch.equal(u[: len(row)], row) and not u[len(row) :].any()
    assert batch.u.shape[1] == max(lengths)


def test_pad_takes_targets_of_any_shape():
    u = torch.zeros(4, 1)
    assert pad([(u, torch.tensor(3)), (u, 4)]).y.tolist() == [3, 4]
    assert pad([(u, torch.ones(7, 2))] * 3).y.shape == (3, 7, 2)


def test_pairs_are_stacked():
    a, b, c, d = (torch.full((n,), n) for n in (1, 2, 3, 4))
    batch = pad([((a, b), 0), ((c, d), 1)])
    assert batch.u.tolist() == [[1, 0, 0, 0], [3, 3, 3, 0], [2, 2, 0, 0], [4, 4, 4, 4]]
    assert batch.lengths.tolist() == [1, 3, 2, 4] and batch.y.tolist() == [0, 1]
    assert pad([((a, a), 0)]).lengths is None


def test_pad_refuses():
    u = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="at least one item"):
        pad([])
    with pytest.raises(ValueError, match="either pairs or single"):
        pad([(u, 0), ((u, u), 0)])
    for sides in ((), (u, u, u)):
        with pytest.raises(ValueError, match="either pairs or single"):
            pad([(sides, 0)])
    with pytest.raises(ValueError, match="want targets of one shape"):
        pad([(u, torch.zeros(2)), (u, torch.zeros(3))])
    with pytest.raises(TypeError, match="as tensors"):
        pad([([1.0, 2.0], 0)])
    for other in (
        torch.zeros(3, 2),
        torch.zeros(3),
        u.double(),
        torch.zeros(0, 1),
        torch.tensor(1),
    ):
        with pytest.raises(ValueError, match="sequences of one kind"):
            pad([(u, 0), (other, 0)])


# ------------------------------------------------------------------ split_at


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 3000), st.floats(0.06, 0.94), st.integers(0, 2**31))
def test_split_is_a_partition(n, share, seed):
    first, second = split_at(n, share, seed)
    assert len(second) == round(n * share) and first.dtype == second.dtype == torch.int64
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(n))


def test_split_is_that_of_random_split():
    """So that a published split by torch.utils.data.random_split is had by its seed."""
    for n, seed in ((60_000, 42), (50_000, 42), (1000, 7)):
        ours = split_at(n, 0.1, seed)
        rng = torch.Generator().manual_seed(seed)
        theirs = torch.utils.data.random_split(range(n), (n - n // 10, n // 10), rng)
        for a, b in zip(ours, theirs, strict=True):
            assert a.tolist() == list(b.indices)
    assert split_at(60_000, 0.1, 42)[0][:5].tolist() == [37542, 43087, 2992, 25810, 39634]


def test_split_leaves_the_global_state_alone():
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    a = split_at(50, 0.2, 1)
    assert torch.equal(torch.rand(3), want)
    assert all(torch.equal(x, y) for x, y in zip(a, split_at(50, 0.2, 1), strict=True))
    assert not torch.equal(a[1], split_at(50, 0.2, 2)[1])


def test_split_refuses():
    for share in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="want 0 < share < 1"):
            split_at(10, share, 0)
    for n, share in ((1, 0.5), (10, 0.01), (10, 0.99), (0, 0.5)):
        with pytest.raises(ValueError, match="something in both parts"):
            split_at(n, share, 0)
    for n in (10.0, True, "10"):
        with pytest.raises(TypeError, match="want n as an int"):
            split_at(n, 0.5, 0)
    for seed in (None, 1.0, "1", True):
        with pytest.raises(TypeError, match="want seed as an int"):
            split_at(10, 0.5, seed)


# ------------------------------------------------------------------ Task


class Two(Task):
    """Two published files that nobody has."""

    name, d_input, d_output, length = "two", 3, 10, 99

    def sources(self):
        return Source("a", "", "md5:" + "0" * 32), Source("b", "", "md5:" + "0" * 32)


def test_task_prepares_its_sources(tmp_path):
    task = Two(tmp_path, download=False)
    with pytest.raises(MissingData, match="want a, which is not there"):
        task.prepare()
    assert task.data_dir == tmp_path and not any(tmp_path.iterdir())
    assert repr(task) == "<two: 99 x 3 a sample to 10>"
    assert (task.metric, task.tokens, task.pairs) == ("accuracy", False, False)
    assert Task(tmp_path).sources() == () and Task(tmp_path).prepare() is None
    with pytest.raises(NotImplementedError):
        task.splits()


def test_task_refuses_a_file_as_folder(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        Two(tmp_path / "x")
    with pytest.raises(ValueError, match="got an empty one"):
        Two("")


def test_collate_passes_ready_batches(tmp_path):
    ready = Batch(torch.zeros(2, 3, 1), torch.zeros(2), None)
    assert Two(tmp_path).collate(ready) is ready
    assert Two(tmp_path).collate([(torch.zeros(3, 1), 0)]).u.shape == (1, 3, 1)
    assert Splits._fields == ("train", "val", "test")
