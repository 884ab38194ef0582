"""Arrays on the disk: whole or not at all, whatever happens in between."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch

from s4lite.data.expressions import Expressions
from s4lite.data.files import DamagedData
from s4lite.data.listops import ListOps, save_expressions
from s4lite.data.shards import Shards, TokenSet, open_shard, shards_in, verify
from s4lite.data.task import pad

FACTS = {"seed": 1, "sizes": (2, 3)}


def made(folder) -> Shards:
    shards = Shards(folder, FACTS)
    shards.write("a.npy", lambda: np.arange(1000))
    shards.write("b.npy", lambda: np.ones((3, 4), np.uint8))
    shards.finish()
    return shards


def test_written_and_read(tmp_path):
    shards = made(tmp_path / "deep" / "er")
    assert np.array_equal(open_shard(shards, "a.npy"), np.arange(1000))
    assert sorted(shards.contents()) == ["a.npy", "b.npy"]
    verify(shards)
    with pytest.raises((ValueError, OSError)):
        open_shard(shards, "a.npy")[0] = 1  # read-only


def test_nothing_is_complete_before_its_list(tmp_path):
    shards = Shards(tmp_path, FACTS)
    shards.write("a.npy", lambda: np.arange(3))
    assert shards.contents() is None
    with pytest.raises(DamagedData, match=r"a\.npy with it listed"):
        open_shard(shards, "a.npy")


def test_what_is_there_is_not_made_again(tmp_path):
    shards = Shards(tmp_path, FACTS)
    shards.write("a.npy", lambda: np.arange(3))
    shards.write("a.npy", lambda: pytest.fail("made again"))


def test_what_was_cut_short_before_the_list_is_made_again(tmp_path):
    shards = Shards(tmp_path, FACTS)
    shards.write("a.npy", lambda: np.arange(1000))
    for size in (0, 5, 100, 1000):
        os.truncate(tmp_path / "a.npy", size)
        shards.write("a.npy", lambda: np.arange(1000))
        assert np.array_equal(np.load(tmp_path / "a.npy"), np.arange(1000))


@pytest.mark.parametrize("size", [0, 10, 8127])
def test_truncated(tmp_path, size):
    shards = made(tmp_path)
    os.truncate(tmp_path / "a.npy", size)
    for refuse in (lambda: open_shard(shards, "a.npy"), lambda: verify(shards)):
        with pytest.raises(DamagedData, match=rf"8,128 bytes, got {size:,} bytes.*remove"):
            refuse()
    assert (tmp_path / "a.npy").stat().st_size == size  # left alone


def test_one_bit(tmp_path):
    shards = made(tmp_path)
    data = bytearray((tmp_path / "a.npy").read_bytes())
    data[-3] ^= 1
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(DamagedData, match=r"a\.npy with sha256:\w+, got sha256:\w+"):
        verify(shards)


def test_gone(tmp_path):
    shards = made(tmp_path)
    (tmp_path / "b.npy").unlink()
    with pytest.raises(DamagedData, match="got no such file"):
        open_shard(shards, "b.npy")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"facts": 1}', "null", '{"files": {}}'])
def test_damaged_list(tmp_path, text):
    shards = made(tmp_path)
    (tmp_path / Shards.LIST).write_text(text)
    with pytest.raises(DamagedData, match="remove"):
        shards.contents()


def test_other_facts(tmp_path):
    made(tmp_path)
    with pytest.raises(DamagedData, match="to hold"):
        Shards(tmp_path, {"seed": 2}).contents()
    one, two = (shards_in(tmp_path, "x", {"seed": seed}).folder for seed in (1, 2))
    assert one != two and one.name.startswith("x-")


def test_full_disk(tmp_path, monkeypatch):
    """Whatever is written up to the moment when the disk is full, nothing stays of the array."""

    def full(file, array, **options):
        file.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shards = Shards(tmp_path, FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            shards.write("a.npy", lambda: np.arange(10))
    assert not any(tmp_path.iterdir())
    made(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="wants a device that is always full")
def test_the_system_says_the_disk_is_full_and_so_do_we(tmp_path, monkeypatch):
    def save(file, array, **options):
        with open("/dev/full", "wb", 0) as full:
            full.write(b"1")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="No space left"):
        Shards(tmp_path, FACTS).write("a.npy", lambda: np.arange(10))
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------ several at once, and one killed


def task_in(folder) -> ListOps:
    shape = {"max_depth": 6, "max_args": 5, "min_length": 10, "max_length": 200}
    return ListOps(folder, sizes=(3_000, 100, 100), workers=1, **shape)


def prepare(folder, gate) -> None:
    gate.wait()
    task_in(folder).prepare()


def test_processes_at_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(3)
    running = [fork.Process(target=prepare, args=(tmp_path, gate)) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0, 0]
    task = task_in(tmp_path)
    verify(task.shards)
    assert len(task.splits().train) == 3_000
    assert len(list(task.shards.folder.iterdir())) == 10  # nine arrays, one list, no left-overs


def dawdle(folder) -> None:
    task, write = task_in(folder), Shards.write
    Shards.write = lambda *args: (write(*args), time.sleep(0.3))
    task.prepare()


def test_killed(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=dawdle, args=(tmp_path,))
    process.start()
    folder = task_in(tmp_path).shards.folder
    until = time.time() + 60
    while time.time() < until and not (folder / "train-ends.npy").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    task = task_in(tmp_path)
    assert task.shards.contents() is None and not (folder / "test-y.npy").exists()
    task.prepare()
    verify(task.shards)
    assert len(task.splits().test) == 100


# ------------------------------------------------------------------ token sets


def tokens_in(folder, pairs=False) -> TokenSet:
    shards = Shards(folder, {})
    ends = np.array([3, 4, 4, 9])  # lengths 3, 1, 0, 5
    count = 2 if pairs else 4
    drawn = Expressions(np.arange(5, 14, dtype=np.uint8), ends, np.arange(4, dtype=np.uint8), 4)
    if pairs:
        parts = {"tokens": drawn.tokens, "ends": ends, "y": drawn.values[:count]}
        for part, array in parts.items():
            shards.write(f"train-{part}.npy", lambda array=array: array)
    else:
        save_expressions(shards, drawn, (4, 0, 0))
    shards.finish()
    return TokenSet(shards, "train", pairs=pairs)


def test_token_set(tmp_path):
    data = tokens_in(tmp_path)
    assert len(data) == 4 and data.lengths.tolist() == [4, 2, 1, 6]
    assert data[0][0].tolist() == [5, 6, 7, 2] and data[2][0].tolist() == [2]
    assert [int(y) for _, y in (data[i] for i in range(4))] == [0, 1, 2, 3]
    assert data[-1][0].tolist() == [9, 10, 11, 12, 13, 2]
    with pytest.raises(IndexError):
        data[4]


def test_token_set_of_pairs(tmp_path):
    data = tokens_in(tmp_path, pairs=True)
    assert len(data) == 2 and data.lengths.tolist() == [4, 6]
    (a, b), y = data[1]
    assert (a.tolist(), b.tolist(), int(y)) == ([2], [9, 10, 11, 12, 13, 2], 1)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("indices", [[0], [1, 0], [0, 0], [-1, 1]])
def test_a_batch_at_once_is_the_items(tmp_path, pairs, indices):
    data = tokens_in(tmp_path, pairs)
    batch, want = data.__getitems__(indices), pad([data[i] for i in indices])
    for a, b in zip(batch, want, strict=True):
        assert (a is None and b is None) or (torch.equal(a, b) and a.dtype == b.dtype)
    part = TokenSet(data.shards, "train", pairs=pairs, rows=torch.tensor([1, 0]))
    assert torch.equal(part.__getitems__([1, 0]).u, data.__getitems__([0, 1]).u)
    with pytest.raises(IndexError):
        data.__getitems__([0, 4])


def test_part_of_a_token_set(tmp_path):
    whole = tokens_in(tmp_path)
    part = TokenSet(whole.shards, "train", rows=torch.tensor([3, 0]))
    assert len(part) == 2 and part.lengths.tolist() == [6, 4]
    assert torch.equal(part[0][0], whole[3][0]) and part[1][1] == 0


def test_a_pickle_takes_no_data_along(tmp_path):
    shards = Shards(tmp_path, {})
    drawn = Expressions(np.zeros(10**6, np.uint8), np.array([10**6]), np.zeros(1, np.uint8), 1)
    save_expressions(shards, drawn, (1, 0, 0))
    shards.finish()
    data = TokenSet(shards, "train")
    assert len(data[0][0]) == 10**6 + 1
    packed = pickle.dumps(data)
    assert len(packed) < 5_000 and torch.equal(pickle.loads(packed)[0][0], data[0][0])


def test_as_many_ends_as_labels(tmp_path):
    shards = Shards(tmp_path, {})
    for part, array in {"tokens": [1, 2], "ends": [1, 2], "y": [0]}.items():
        shards.write(f"train-{part}.npy", lambda array=array: np.array(array))
    shards.finish()
    with pytest.raises(DamagedData, match="as many ends as labels"):
        TokenSet(shards, "train")


def test_list_is_readable(tmp_path):
    made(tmp_path)
    text = json.loads((tmp_path / "contents.json").read_text())
    assert text["facts"] == {"seed": 1, "sizes": [2, 3]}
    assert text["files"]["b.npy"]["digest"].startswith("sha256:")
