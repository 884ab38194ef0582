"""A part of a task, and tasks found by their place."""

import sys
import types

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from s4lite.data.listops import ListOps
from s4lite.data.pictures import Pixels
from s4lite.data.task import Batch, Splits, Task
from s4lite.recipes.catalogue import recipe
from s4lite.recipes.parts import Part, Rows, load, task_for
from s4lite.train.data import TaskData

SHAPE = {"max_depth": 3, "max_args": 3, "min_length": 3, "max_length": 30}


@pytest.fixture
def lists(tmp_path):
    return ListOps(tmp_path, sizes=(200, 40, 30), workers=1, **SHAPE)


class Counted(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return torch.full((4, 1), float(i)), i


def test_rows_are_some_of_them_each_once_in_order():
    rows = Rows(Counted(100), 17)
    found = [y for _, y in (rows[i] for i in range(len(rows)))]
    assert len(found) == 17 and found == sorted(set(found)) and max(found) > 50 > min(found)
    assert [y for _, y in rows.__getitems__([3, 1])] == [found[3], found[1]]


def test_rows_do_not_depend_on_torch_s_state_nor_move_it():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = Rows(Counted(50), 9).rows
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, Rows(Counted(50), 9).rows)


@pytest.mark.parametrize("count", [None, 5, 8])
def test_as_many_as_there_are(count):
    assert Rows(Counted(5), count).rows.tolist() == [0, 1, 2, 3, 4]


def test_a_smaller_part_is_inside_a_larger_one():
    small, large = (set(Rows(Counted(60), n).rows.tolist()) for n in (10, 30))
    assert small < large


def test_whole_batches_stay_whole_batches():
    pixels = torch.randint(0, 256, (20, 6, 1), dtype=torch.uint8)
    data = Pixels(pixels, torch.arange(20), torch.arange(20), (0.0, 1.0))
    rows = Rows(data, 7)
    batch = rows.__getitems__([0, 6])
    assert isinstance(batch, Batch) and batch.y.tolist() == [rows[0][1], rows[6][1]]
    assert not hasattr(rows, "lengths")


def test_part_is_the_task_but_smaller(lists):
    part = Part(lists, train=50, test=9)
    splits = part.splits()
    assert [len(x) for x in splits] == [50, 40, 9]
    assert (part.d_input, part.d_output, part.length) == (18, 10, 30)
    assert (part.name, part.metric, part.tokens, part.pairs) == (
        lists.name,
        "accuracy",
        True,
        False,
    )
    assert part.sources() == () and "50 to train, 9 to test" in repr(part)
    for i in range(50):
        assert len(splits.train[i][0]) == splits.train.lengths[i]
    assert np.all(np.diff(splits.train.rows.numpy()) > 0)


def test_part_feeds_the_trainer_with_buckets(lists):
    data = TaskData(Part(lists, train=64, val=8), 16, seed=1, buckets=True)
    data.setup()
    batches = list(data.train_dataloader())
    assert len(batches) == 4 and data.steps() == 4
    assert all(b.u.shape[0] == 16 for b in batches)


class Shy(Task):
    """Knows its sizes only when it is prepared."""

    name, length = "shy", 5

    @property
    def d_input(self):
        raise RuntimeError("prepared too early")

    d_output = d_input


def test_making_a_part_prepares_nothing(tmp_path):
    part = Part(Shy(tmp_path), train=5)
    with pytest.raises(RuntimeError, match="too early"):
        _ = part.d_output


@pytest.mark.parametrize(("wrong", "kind"), [(0, ValueError), (2.5, TypeError), (True, TypeError)])
def test_part_refuses(lists, wrong, kind):
    with pytest.raises(kind, match="want val"):
        Part(lists, val=wrong)


def test_load_says_what_this_version_has_not():
    assert load("data.listops:ListOps") is ListOps
    for place in ("data.nowhere:Task", "data.listops:Nothing"):
        with pytest.raises(NotImplementedError, match="not in this version of s4lite"):
            load(place)


def test_load_does_not_hide_other_failures(monkeypatch):
    module = types.ModuleType("s4lite.data.broken")
    monkeypatch.setitem(sys.modules, "s4lite.data.broken", module)

    def missing(name):
        raise ModuleNotFoundError("No module named 'soundfile'", name="soundfile")

    module.__getattr__ = missing
    with pytest.raises(ModuleNotFoundError, match="soundfile"):
        load("data.broken:Task")


def test_task_for_takes_stand_ins_options_and_parts(tmp_path):
    made = recipe("lra-retrieval")
    assert "stand-in" in task_for(made, made.sizes["tiny"], tmp_path).name
    assert task_for(made, made.sizes["paper"], tmp_path).name == "retrieval"
    digits = recipe("pmnist")
    task = task_for(digits, digits.sizes["tiny"], tmp_path, download=False)
    assert isinstance(task, Part) and task.whole.permute == "bit-reversal" and not task.download
    assert not list(tmp_path.iterdir())


def test_splits_are_named_as_the_counts():
    assert Splits._fields == ("train", "val", "test")
