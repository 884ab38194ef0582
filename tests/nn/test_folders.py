"""Folders that are whole or refused: killed at any moment, on a full disk, cut short, mixed."""

import errno
import json
import os
import shutil
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.nn import folders
from s4lite.nn.folders import BadFolder, Folder, write_folder
from s4lite.nn.shards import read_tensors, tensor_files

OLD, NEW = [("a", b"old a"), ("b", b"old")], [("a", b"new"), ("b", b"new b"), ("c", b"")]


def content(path):
    folder = Folder(path, "thing")
    return [(name, folder.read(name)) for name in folder.files], folder.facts


def put(path, files=OLD, **facts):
    write_folder(path, "thing", files, facts)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "there"
    put(path, which=1)
    assert content(path) == (OLD, {"which": 1})
    put(path, NEW, which=2)
    assert content(path) == (NEW, {"which": 2})
    assert [p.name for p in path.parent.iterdir()] == ["there"]
    assert {p.name for p in path.iterdir()} == {"a", "b", "c", "manifest.json"}


class Dying:
    """Count what is asked of the system, and at one of the calls do something else."""

    def __init__(self, monkeypatch, at, act):
        self.calls, self.at, self.act = 0, at, act
        for home, name in [(os, "fsync"), (os, "rename"), (os, "open"), (shutil, "rmtree")]:
            self.watch(monkeypatch, home, name)

    def watch(self, monkeypatch, home, name):
        real = getattr(home, name)

        def called(*args, **options):
            self.calls += 1
            if self.calls == self.at:
                self.act()
            return real(*args, **options)

        monkeypatch.setattr(home, name, called)


def test_killed_at_any_moment_it_is_the_old_or_the_new(tmp_path, monkeypatch):
    put(tmp_path / "count")
    with monkeypatch.context() as patch:
        dying = Dying(patch, 0, None)
        put(tmp_path / "count", NEW)
    seen = set()
    for at in range(1, dying.calls + 1):
        path = tmp_path / f"killed-{at}"
        put(path)
        if not (pid := os.fork()):
            Dying(monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            put(path, NEW)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        files, _ = content(path)
        assert files in (OLD, NEW)
        seen.add(len(files))
        put(path, NEW)  # and it can be written again
        assert content(path)[0] == NEW
    assert dying.calls >= 8 and seen == {2, 3}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_what_stood_and_nothing_else(tmp_path, monkeypatch, number):
    def full():
        raise OSError(number, os.strerror(number))

    for at in range(1, 6):  # every fsync of a file, and the folder's
        put(path := tmp_path / "it")
        with monkeypatch.context() as patch:
            Dying(patch, at, full)
            with pytest.raises(OSError) as caught:
                put(path, NEW)
        assert caught.value.errno == number
        if number != errno.EIO:
            assert "no part of it was kept, and what stood there stands" in str(caught.value)
        assert content(path)[0] == OLD and os.listdir(tmp_path) == ["it"]


def test_if_the_name_cannot_be_given_the_old_one_gets_it_back(tmp_path, monkeypatch):
    put(path := tmp_path / "it")
    real = os.rename

    def rename(a, b):
        if str(a).endswith(".part"):
            raise OSError(errno.EIO, "no")
        real(a, b)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="no"):
        put(path, NEW)
    assert content(path)[0] == OLD and os.listdir(tmp_path) == ["it"]


def test_what_is_not_ours_is_never_replaced(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    put(mine)  # empty: why not
    (mine / "thesis.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=r"want a new name, .* got thesis\.txt"):
        put(mine, NEW)
    assert (mine / "thesis.txt").read_text() == "dear" and content(mine)[0] == OLD
    with pytest.raises(FileExistsError):
        write_folder(mine, "another kind", NEW, {})
    (file := tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="got file"):
        put(file)


DAMAGE = {
    "cut short": (lambda p: (p / "a").write_bytes(b"old"), "want a of 5 bytes, got 3 bytes"),
    "emptied": (lambda p: (p / "b").write_bytes(b""), "want b of 3 bytes, got 0 bytes"),
    "lost": (lambda p: (p / "b").unlink(), "want b of 3 bytes, got no such file"),
    "flipped": (lambda p: (p / "a").write_bytes(b"old b"), "want a with sha256"),
    "no index": (lambda p: (p / "manifest.json").unlink(), "want a thing with its .*, got a, b"),
    "half an index": (
        lambda p: (p / "manifest.json").write_bytes((p / "manifest.json").read_bytes()[:99]),
        "want an index manifest.json, got something else",
    ),
    "another index": (lambda p: (p / "manifest.json").write_text("[]"), "got something else"),
    "null": (lambda p: (p / "manifest.json").write_text("null"), "got something else"),
    "later": (
        lambda p: (p / "manifest.json").write_text(
            (p / "manifest.json").read_text().replace('"format": 1', '"format": 2')
        ),
        "want thing 1, got thing 2, by s4lite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused_with_what_came(tmp_path, name):
    put(path := tmp_path / "it")
    damage, said = DAMAGE[name]
    damage(path)
    with pytest.raises(BadFolder, match=said) as caught:
        content(path)
    assert "Nothing was loaded from" in str(caught.value) and str(path) in str(caught.value)


def test_files_of_two_are_refused(tmp_path):
    put(one := tmp_path / "one"), put(two := tmp_path / "two", [("a", b"other"), ("b", b"oth")])
    shutil.copy(two / "a", one / "a")
    with pytest.raises(BadFolder, match="want a with sha256"):
        content(one)


def test_another_kind_none_and_a_file(tmp_path):
    put(path := tmp_path / "it")
    with pytest.raises(BadFolder, match="want state 1, got thing 1"):
        Folder(path, "state")
    with pytest.raises(FileNotFoundError, match="want a folder of kind thing, got none"):
        Folder(tmp_path / "none", "thing")
    with pytest.raises(NotADirectoryError, match="got a file"):
        Folder(path / "a", "thing")


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"old a")
    put(path := tmp_path / "it")
    about = json.loads((path / "manifest.json").read_text())
    about["files"]["../secret"] = about["files"].pop("a")
    (path / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(BadFolder, match="secret"):
        content(path)


def test_what_stands_aside_outlives_an_empty_folder(tmp_path, monkeypatch):
    put(path := tmp_path / "it")
    path.rename(tmp_path / ".it.old"), path.mkdir()  # killed in between, and somebody's mkdir
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda a, b: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        with pytest.raises(OSError, match="no"):
            put(path, NEW)
    assert content(tmp_path / ".it.old")[0] == OLD
    put(path, NEW)
    assert content(path)[0] == NEW and os.listdir(tmp_path) == ["it"]


def test_a_file_that_is_none_of_safetensors(tmp_path):
    put(path := tmp_path / "it", [("model.safetensors", b"no tensors at all")])
    with pytest.raises(BadFolder, match=r"want tensors in model\.safetensors, got"):
        read_tensors(Folder(path, "thing"), "model")


def test_facts_that_json_cannot_hold_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        put(tmp_path / "it", value=float("nan"))
    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------- tensors

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64)


def written(path, tensors, limit=None):
    write_folder(path, "thing", tensor_files("model", tensors, limit), {})
    return Folder(path, "thing")


def same(a, b):
    equal = lambda x, y: x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)  # noqa: E731
    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def some_tensors():
    gen = torch.Generator().manual_seed(0)
    tensors = {str(d): torch.randn(7, 5, generator=gen).to(d) for d in DTYPES}
    tensors |= {"empty": torch.zeros(0, 3), "one": torch.tensor(3.5), "odd/ä.x": torch.ones(1)}
    tensors |= {"a": torch.ones(3), "a#0": torch.zeros(2), "a#b": torch.ones(2), "#": torch.ones(1)}
    big = torch.randn(600, 8, generator=gen, dtype=torch.float64)
    return tensors | {"big": big, "turned": big.T, "part": big[3:5], "tied": big}


@pytest.mark.parametrize("limit", [None, 1, 2000, 16 * 2**20])
def test_tensors_come_back_with_the_same_bits(tmp_path, limit):
    tensors = some_tensors()
    assert same(read_tensors(written(tmp_path / "it", tensors, limit), "model"), tensors)


def test_values_that_are_no_numbers_come_back(tmp_path):
    x = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    y = read_tensors(written(tmp_path / "it", {"x": x}), "model")["x"]
    assert torch.equal(x.view(torch.int32), y.view(torch.int32))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=9), st.integers(600, 9000)
)
def test_shards_are_as_small_as_asked(tmp_path_factory, shapes, limit):
    tensors = {f"x{i}": torch.full(shape, float(i)) for i, shape in enumerate(shapes)}
    path = tmp_path_factory.mktemp("shards") / "it"
    folder = written(path, tensors, limit)
    assert same(read_tensors(folder, "model"), tensors)
    assert all((path / name).stat().st_size <= limit for name in folder.files)
    count = len(folder.files)
    names = {f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)}
    assert set(folder.files) == (names if count > 1 else {"model.safetensors"})


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_bad_limit(limit):
    with pytest.raises(ValueError, match="want shards of more than nothing"):
        list(tensor_files("model", {}, limit))


def test_tensors_that_are_not_there(tmp_path):
    put(tmp_path / "it")
    with pytest.raises(BadFolder, match=r"want model\.safetensors, got a, b"):
        read_tensors(Folder(tmp_path / "it", "thing"), "model")


def test_a_shard_that_is_lost_is_missed(tmp_path):
    folder = written(tmp_path / "it", some_tensors(), 2000)
    os.unlink(tmp_path / "it" / sorted(folder.files)[1])
    with pytest.raises(BadFolder, match="got no such file"):
        Folder(tmp_path / "it", "thing")


def test_versions_are_kept(tmp_path):
    put(tmp_path / "it")
    assert Folder(tmp_path / "it", "thing").versions == folders.versions()
    assert folders.versions().keys() == {"python", "torch", "numpy", "s4lite"}
