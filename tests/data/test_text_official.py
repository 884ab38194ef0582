"""The published texts themselves, where S4LITE_DATA_DIR names a folder that has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from s4lite.data.counts import Counts
from s4lite.data.files import MissingData
from s4lite.data.text import Bytes, Letters, Words

FOLDER = os.environ.get("S4LITE_DATA_DIR", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="S4LITE_DATA_DIR names no folder with the files")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of our own that shows the published files: what is made of them lies elsewhere."""
    own = tmp_path_factory.mktemp("texts")
    for path in Path(FOLDER).iterdir():
        if path.name != "text":
            (own / path.name).symlink_to(path)
    return own


def have(task):
    try:
        task.prepare()
    except MissingData as error:
        pytest.skip(str(error).splitlines()[0])
    return task


def sizes(task):
    return [len(task.symbols(split)) - 1 for split in ("train", "val", "test")]


def asked(part):
    return sum(int((part.__getitems__([k]).y >= 0).sum()) for k in range(len(part)))


@pytest.mark.slow
@pytest.mark.parametrize(("alphabet", "kinds"), [("corpus", 256), ("seen", 205)])
def test_enwik8(folder, alphabet, kinds):
    task = have(Bytes(folder, alphabet=alphabet, length=2048, download=False))
    assert sizes(task) == [89_999_999, 5_000_000, 5_000_000] and task.d_input == kinds
    splits = task.splits()
    assert [len(part) for part in splits] == [43_945, 4_882, 4_882]
    assert asked(splits.val) == asked(splits.test) == 5_000_000
    assert task.decode(task.symbols("val")[1:8]) == b"ern hig"  # in the middle of "northern"
    assert task.decode(task.symbols("test")[1:10]) == b"ww.auburn"
    assert splits.train[0][0].shape == (2048,) and task.bits_per_byte(1.0) == 1.0
    own = np.bincount(np.frombuffer(task.decode(task.symbols("test")[1:]), np.uint8), minlength=256)
    assert (own > 0).sum() == 198


@pytest.mark.slow
def test_text8(folder):
    task = have(Bytes(folder, corpus="text8", download=False))
    assert sizes(task) == [89_999_999, 5_000_000, 5_000_000] and task.d_input == 27
    assert {*np.unique(task.symbols("train"))} == {*range(27)}


def test_tiny_shakespeare(folder):
    task = have(Letters(folder, download=False))
    assert sizes(task) == [1_003_853, 55_770, 55_770] and task.d_input == 65
    assert asked(task.splits().test) == 55_770 and task.bits_per_byte(2.0) == 2.0
    assert task.decode(task.symbols("train")[:14]) == "First Citizen:"
    embedded = Path(__file__).parents[2] / "chapters" / "data" / "shakespeare.txt"
    if embedded.exists():
        content = embedded.read_bytes()
        assert task.decode(task.symbols("train")[: len(content)]).encode() == content
    model = Counts(task.symbols("train"), 65, 4)
    val, test = (model.bits(task.symbols(split))[1:].mean() for split in ("val", "test"))
    assert 2.2 < val < 2.3 and 2.5 < test < 2.6  # the last plays are another matter


@pytest.mark.slow
def test_wikitext2(folder):
    task = have(Words(folder, download=False))
    assert sizes(task) == [2_088_628, 217_646, 245_569] and task.d_input == 33_278
    assert task.vocabulary()[:6] == ["<eos>", "<unk>", "the", ",", ".", "of"]
    assert asked(task.splits().test) == 245_569
    lines = [int((task.symbols(split)[1:] == 0).sum()) for split in ("train", "val", "test")]
    assert lines == [36_718, 3_760, 4_358]
    assert abs(task.bits_per_byte(1.0) - 245_569 / 1_256_449) < 1e-12


@pytest.mark.slow
def test_wikitext103(folder):
    task = have(Words(folder, corpus="wikitext103", download=False))
    assert sizes(task) == [103_227_021, 217_646, 245_569] and task.d_input == 267_735
