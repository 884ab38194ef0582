"""A run's state as a folder: exact, in shards, refused when anything is wrong with it."""

import io
import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_module import Stop, StopAfter
from tiny import data, learner, same, trainer, weights
from torch import nn

from s4lite.nn.folders import BadFolder
from s4lite.train.checkpoints import (
    StateIO,
    discard,
    newest,
    put_back,
    read_weights,
    state_path,
    states,
    take_out,
)

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.floats(-1, 1), max_size=3).map(torch.tensor), st.integers(0, 9).map(torch.tensor),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda each: st.one_of(
        st.lists(each, max_size=3),
        st.lists(each, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=3)), each, max_size=3),
    ),
    max_leaves=12,
)


def alike(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b


@given(TREES)
def test_a_tree_is_parted_and_put_together(tree):
    bare, tensors = take_out({"x": tree})
    assert all(x.ndim for x in tensors.values())
    buffer = io.BytesIO()
    torch.save(bare, buffer)
    buffer.seek(0)
    assert alike(put_back(torch.load(buffer, weights_only=True), tensors), {"x": tree})


def some_state():
    model = nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 30)).square().sum().backward(), optimizer.step()
    states = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    return states | {"epoch": 1, "global_step": 7, "loops": {"fit": {"seen": 3, "pair": (1, 2)}}}


@pytest.mark.parametrize("shard_mib", [None, 0.001])
def test_a_state_comes_back(tmp_path, shard_mib):
    state, stateio = some_state(), StateIO(shard_mib)
    stateio.save_checkpoint(state, tmp_path / "it")
    got = stateio.load_checkpoint(tmp_path / "it", weights_only=True)
    assert alike(got, {**state, "state_dict": dict(state["state_dict"])})
    assert same(read_weights(tmp_path / "it"), dict(state["state_dict"]))
    names = {p.name for p in (tmp_path / "it").iterdir()}
    assert {"manifest.json", "trainer.pt"} < names
    if shard_mib:
        tensors = [p for p in (tmp_path / "it").iterdir() if p.suffix == ".safetensors"]
        assert len(tensors) > 6 and all(p.stat().st_size < 1100 for p in tensors)
    else:
        assert len(names) == 4


def test_tied_weights_come_back(tmp_path):
    x = torch.randn(4, 4)
    StateIO().save_checkpoint({"state_dict": {"a": x, "b": x, "c": x.T}}, tmp_path / "it")
    assert same(read_weights(tmp_path / "it"), {"a": x, "b": x, "c": x.T})


def test_a_small_tensor_brings_no_large_storage(tmp_path):
    large = torch.zeros(10**6)
    StateIO().save_checkpoint(
        {"state_dict": {"a": large[:3]}, "x": large[0], "y": large[:2]}, tmp_path / "it"
    )
    assert sum(p.stat().st_size for p in (tmp_path / "it").iterdir()) < 10_000


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "trainer.pt", "manifest.json"]
)
@pytest.mark.parametrize("way", ["cut", "flipped", "lost", "other's"])
def test_damaged_mixed_and_foreign_states_are_refused(tmp_path, name, way):
    StateIO().save_checkpoint(some_state(), tmp_path / "it")
    StateIO().save_checkpoint(some_state() | {"epoch": 2}, tmp_path / "other")
    file = tmp_path / "it" / name
    content = file.read_bytes()
    if way == "lost":
        file.unlink()
    elif way == "other's":
        shutil.copy(tmp_path / "other" / name, file)
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        file.write_bytes(content[:half] if way == "cut" else flipped)
    with pytest.raises(BadFolder, match="want "):
        StateIO().load_checkpoint(tmp_path / "it")


def test_code_in_a_state_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    StateIO().save_checkpoint({"state_dict": {}, "loops": Evil()}, tmp_path / "it")
    for weights_only in (True, False, None):
        with pytest.raises(BadFolder, match="want a run's state"):
            StateIO().load_checkpoint(tmp_path / "it", weights_only=weights_only)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shard_mib", [0, -1, float("nan")])
def test_bad_shards(shard_mib):
    with pytest.raises(ValueError, match="want shard_mib > 0 or None"):
        StateIO(shard_mib)


@pytest.mark.parametrize("shard_mib", [None, 0.0005])
def test_lightning_takes_up_a_run_from_such_a_folder(tmp_path, shard_mib):
    settings = {"ema": 0.9, "clip": 0.5}
    whole, half = learner(**settings), learner(**settings)
    trainer(tmp_path).fit(whole, data())
    path, plugins = tmp_path / "half", [StateIO(shard_mib)]
    with pytest.raises(Stop):
        stop = StopAfter(path, "on_train_batch_end", 13)
        trainer(tmp_path, callbacks=[stop], plugins=plugins).fit(learner(**settings), data())
    run = trainer(tmp_path, plugins=[StateIO()])
    run.fit(half, data(), ckpt_path=path, weights_only=True)
    assert same(weights(whole), weights(half)) and run.global_step == 27
    run.strategy.remove_checkpoint(path)
    assert not path.exists()


def test_states_of_a_run_are_found_newest_first(tmp_path):
    assert states(tmp_path) == [] and newest(tmp_path) == (None, [])
    for step in (9, 10, 1000):
        StateIO().save_checkpoint(some_state() | {"global_step": step}, state_path(tmp_path, step))
    assert [p.name[-4:] for p in states(tmp_path)] == ["1000", "0010", "0009"]
    state, said = newest(tmp_path)
    assert state["global_step"] == 1000 and said == [] and state["path"].endswith("1000")


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path):
    for step in (9, 10, 1000):
        StateIO().save_checkpoint(some_state() | {"global_step": step}, state_path(tmp_path, step))
    (state_path(tmp_path, 1000) / "trainer.pt").write_bytes(b"")
    (state_path(tmp_path, 10) / "manifest.json").unlink()
    state, said = newest(tmp_path)
    assert state["global_step"] == 9 and len(said) == 2 and "got 0 bytes" in said[0]
    (state_path(tmp_path, 9) / "model.safetensors").unlink()
    with pytest.raises(BadFolder, match="want a sound state to go on from, got none") as caught:
        newest(tmp_path)
    assert str(caught.value).count("Nothing was loaded") == 3
    assert len(states(tmp_path)) == 3  # all of them left as they are


def test_names_that_would_be_one_are_refused():
    x, y = torch.ones(2), torch.zeros(2)
    for tree in ({"a/b": x, "a": {"b": y}}, {1: x, "1": y}):
        with pytest.raises(ValueError, match="want names that differ, got"):
            take_out({"t": tree})


def test_advice_to_trust_a_file_is_not_passed_on(tmp_path):
    StateIO().save_checkpoint({"state_dict": {}, "loops": Stop}, tmp_path / "it")
    with pytest.raises(BadFolder, match="holds more than plain data") as caught:
        StateIO().load_checkpoint(tmp_path / "it")
    assert "weights_only" not in str(caught.value)


def test_discarding(tmp_path):
    (path := tmp_path / "it").mkdir()
    (path / "x").write_text("x")
    discard(path), discard(path)
    assert not os.listdir(tmp_path)
