"""Counting and compressing: against the definition, and what both promise."""

import bz2
import gzip
import lzma
import math

import numpy as np
import pytest

from s4lite.data.corpora import Corpus
from s4lite.data.counts import Counts, GramTable, check_symbols, grams, packed, text_floors
from s4lite.data.files import Source, digest_of
from s4lite.data.text import Bytes, Words


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def chance(train, V, h, s):
    """The definition, with lists."""
    p = chance(train, V, h[1:], s) if h else 1 / V
    k = len(h)
    after = [train[t] for t in range(k, len(train)) if train[t - k : t] == h]
    return (after.count(s) + len({*after}) * p) / (len(after) + len({*after})) if after else p


@pytest.mark.parametrize(("V", "order"), [(1, 0), (2, 0), (2, 9), (3, 3), (7, 2), (256, 1)])
def test_bits_are_the_definition(rng, V, order):
    train, held = rng.integers(0, V, 120), rng.integers(0, V, 40)
    model = Counts(train.astype(np.uint8), V, order)
    tuples = tuple(train.tolist())
    want = []
    for t in range(40):
        h = tuple(held[max(0, t - order) : t].tolist())
        want.append(-math.log2(chance(tuples, V, h, held[t])))
    assert abs(model.bits(held) - want).max() < 1e-12


def test_known_limits_the_context(rng):
    train, held = rng.integers(0, 3, 200), rng.integers(0, 3, 30)
    model = Counts(train, 3, 4)
    for k in range(5):
        short = Counts(train, 3, k).bits(held)
        assert abs(model.bits(held, np.full(30, k)) - short).max() < 1e-12
    cut = np.arange(30) % 6  # windows of six: each knows nothing before its beginning
    want = np.concatenate([model.bits(held[a : a + 6]) for a in range(0, 30, 6)])
    assert abs(model.bits(held, cut) - want).max() < 1e-12


@pytest.mark.parametrize("order", [0, 1, 5])
def test_chances_are_a_distribution_and_agree_with_bits(rng, order):
    train, held = rng.integers(0, 5, 300), rng.integers(0, 5, 60)
    model, bits = Counts(train, 5, order), Counts(train, 5, order).bits(held)
    for t in range(60):
        p = model.chances(held[:t])
        assert p.shape == (5,) and p.min() > 0 and abs(p.sum() - 1) < 1e-12
        assert abs(-math.log2(p[held[t]]) - bits[t]) < 1e-12


def test_held_out_bits_are_no_less_than_the_entropy(rng):
    p = np.array([0.5, 0.25, 0.125, 0.125])
    train, held = (rng.choice(4, 20_000, p=p) for _ in range(2))
    bits = Counts(train, 4, 0).bits(held)
    spread = 4 * math.sqrt((p * np.log2(p) ** 2).sum() - 1.75**2) / math.sqrt(20_000)
    assert abs(bits.mean() - 1.75) < spread
    assert Counts(train, 4, 5).bits(held).mean() > bits.mean()  # nothing to gain, something to lose


def test_deterministic_text_costs_next_to_nothing():
    text = np.tile([0, 1, 2, 1], 500)
    assert Counts(text, 3, 2).bits(text)[2:].mean() < 0.01 < Counts(text, 3, 0).bits(text).mean()


@pytest.mark.parametrize(("V", "j"), [(256, 7), (2, 63), (33_278, 3), (1, 5)])
def test_keys_have_room(V, j):
    symbols = np.full(j + 2, V - 1, np.uint64)
    key = int(grams(symbols, V, j)[0])
    assert key == sum(int(symbols[0]) * V**i for i in range(j + 1)) < 2**64
    with pytest.raises(ValueError, match=r"want V\^\(order \+ 1\) <= 2\^64"):
        grams(symbols, 2**33, 1)


@pytest.mark.parametrize("V", [np.int64(300), np.uint64(300), np.int32(70_000)])
def test_numpys_whole_numbers_do_not_run_over(V):
    symbols = np.array([0, 1, 299, 7] * 5)
    with pytest.raises(ValueError, match=r"want V\^\(order \+ 1\) <= 2\^64"):
        Counts(symbols, V, 7)
    with pytest.raises(ValueError, match=r"<= 2\^64"):
        grams(symbols, V, 7)
    want = Counts(symbols, int(V), 2).bits(symbols)
    assert np.array_equal(Counts(symbols, V, np.int64(2)).bits(symbols), want)


def test_what_has_no_room_is_refused_before_anything_is_counted(monkeypatch):
    monkeypatch.setattr("s4lite.data.counts.GramTable", None)
    with pytest.raises(ValueError, match=r"<= 2\^64"):
        Counts(np.zeros(100, int), 256, 8)


def test_a_table_of_nothing_is_refused():
    for n in (0, 2):
        with pytest.raises(ValueError, match=f"want more than 2 symbols to count, got {n}"):
            GramTable(np.zeros(n, int), 2, 2)


@pytest.mark.parametrize("known", [3, [1, 2], [[1, 2, 3]]])
def test_known_is_one_number_a_symbol(known):
    with pytest.raises(ValueError, match=r"want known \(3,\), got"):
        Counts(np.array([0, 1, 1]), 2, 1).bits(np.array([0, 1, 0]), np.array(known))


@pytest.mark.parametrize("strange", [-100, 256, 2**40])
def test_check_symbols_names_the_first_strange_one(strange):
    assert check_symbols([255, 0], 256).tolist() == [255, 0]
    assert check_symbols([], 256).dtype == np.int64
    with pytest.raises(ValueError, match=rf"want symbols 0 \.\. 255, got {strange}$"):
        check_symbols([3, strange, -7], 256)


@pytest.mark.parametrize(
    ("symbols", "V", "order", "error", "message"),
    [
        ([0, 1], 2, 2, ValueError, "want more than 2 symbols"),
        ([0, 2], 2, 0, ValueError, r"want symbols 0 \.\. 1"),
        ([0, -1], 2, 0, ValueError, r"want symbols 0 \.\. 1"),
        ([0.0, 1.0], 2, 0, TypeError, "want symbols"),
        ([[0, 1]], 2, 0, TypeError, "want symbols"),
        ([0, 1], 0, 0, ValueError, "want V >= 1"),
        ([0, 1], 2, -1, ValueError, "want order >= 0"),
        ([0] * 9, 256, 8, ValueError, "<= 2.64"),
    ],
)
def test_counts_refuse(symbols, V, order, error, message):
    with pytest.raises(error, match=message):
        Counts(np.array(symbols), V, order)


def test_bits_refuse_strange_symbols():
    model = Counts(np.array([0, 1, 1]), 2, 1)
    for call in (model.bits, model.chances):
        with pytest.raises(ValueError, match=r"want symbols 0 \.\. 1"):
            call(np.array([0, 2]))
    assert len(model.bits(np.array([], int))) == 0


def test_packed_is_what_the_compressor_writes(rng):
    text = b"to be or not to be, " * 50 + rng.bytes(300)
    want = {"gzip": gzip.compress(text, 9, mtime=0), "bz2": bz2.compress(text), "xz": None}
    want["xz"] = lzma.compress(text, preset=9)
    for method, content in want.items():
        assert packed(text, method) == len(content)
        assert packed(text, method, text) < len(content) / 3 or method == "bz2"
    with pytest.raises(ValueError, match='want method "gzip", "bz2" or "xz"'):
        packed(text, "zip")


def source(path, name, content):
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(content)
    return Source(name, "", digest_of(path / name))


def test_floors_of_bytes(tmp_path, rng):
    content = bytes(rng.choice(4, 6_000, p=[0.5, 0.25, 0.125, 0.125]).astype(np.uint8))
    text = Corpus("four", ("f",), None, (source(tmp_path, "f", content),), (4000, 1000, 1000))
    task = Bytes(tmp_path, corpus=text, alphabet="seen", length=100)
    found = text_floors(task, orders=(0, 2))
    assert list(found) == ["uniform", "order 0", "order 2", "gzip", "bz2", "xz"]
    assert found["uniform"] == 2 and abs(found["order 0"] - 1.75) < 0.15
    assert abs(found["order 2"] - 1.75) < 0.2
    assert found["xz"] == 8 * len(lzma.compress(content[-1000:], preset=9)) / 1000
    primed = text_floors(task, orders=(), past=10**9)["xz"]
    both = content[:4000] + content[-1000:]
    want = len(lzma.compress(both, preset=9)) - len(lzma.compress(both[:4000], preset=9))
    assert primed == 8 * want / 1000
    assert text_floors(task, orders=(), split="val") != text_floors(task, orders=())
    with pytest.raises(ValueError, match="want past >= 0"):
        text_floors(task, past=-1)
    with pytest.raises(ValueError, match="want order 2 >= 0"):
        text_floors(task, orders=(0, -1))
    with pytest.raises(TypeError, match="want order 1 as an int"):
        text_floors(task, orders=[1.0])
    each = [text_floors(task, orders=iter([k]))[f"order {k}"] for k in (2, 0, 5)]
    together = text_floors(task, orders=(2, 0, 5))  # counted once, for the longest
    assert abs(np.array([together[f"order {k}"] for k in (2, 0, 5)]) - each).max() < 1e-12
    assert list(together)[1:4] == ["order 2", "order 0", "order 5"]
    with pytest.raises(ValueError, match="want a split among"):
        text_floors(task, split="valid")


def test_floors_of_words(tmp_path):
    parts = (b"a b a c\n" * 40, b"a b\n", b"a b d\n\n")
    names = [f"w/{name}" for name in ("train", "valid", "test")]
    plain = tuple(source(tmp_path, n, c) for n, c in zip(names, parts, strict=True))
    task = Words(tmp_path, corpus=Corpus("w", tuple(names), None, plain), length=2)
    found = text_floors(task, orders=(0, 1))
    assert found["uniform"] == math.log2(5)  # <eos>, <unk>, a, b, c
    assert task.symbols("test")[1:].tolist() == [2, 3, 1, 0, 0]  # a b <unk> <eos> <eos>
    train = task.symbols("train")
    want = Counts(train, 5, 1).bits(np.array([0, 2, 3, 1, 0, 0]))[1:].mean()
    assert abs(found["order 1"] - want) < 1e-12
    assert abs(task.bits_per_byte(found["order 1"]) - want * 5 / len(parts[2])) < 1e-12
