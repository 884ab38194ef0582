"""ListOps: laws of the generator, values by a parser of its own, the ladder, the task on disk."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite.data import listops
from s4lite.data.expressions import Expressions, evaluate, read_listops
from s4lite.data.files import DamagedData, MissingData
from s4lite.data.ladder import known_to_depth, node_values, read_levels
from s4lite.data.listops import ListOps, generate_listops
from s4lite.data.release import find_listops
from s4lite.data.trees import CLOSE, DIGIT, EOS, OPERATOR, VOCABULARY, Shape, fold

ARENA = generate_listops(8_000, 0)
SMALL = {"max_depth": 5, "max_args": 4, "min_length": 5, "max_length": 60}


def words(tokens) -> list[str]:
    return [VOCABULARY[t] for t in tokens]


def parse(text: list[str], at: int = 0) -> tuple[int, int, int]:
    """Value, place behind it, and depth of the expression at a place: recursion over words."""
    word = text[at]
    if word in "0123456789":
        return int(word), at + 1, 1
    args, depths, at = [], [], at + 1
    while text[at] != "X":
        value, at, depth = parse(text, at)
        args.append(value)
        depths.append(depth)
    assert 2 <= len(args) <= 10
    ordered, n = sorted(args), len(args)
    median = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) // 2
    value = {"[MIN": ordered[0], "[MAX": ordered[-1], "[MED": median, "[SM": sum(args) % 10}[word]
    return value, at + 1, 1 + max(depths)


def digest(drawn: Expressions) -> str:
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(a).tobytes() for a in drawn[:3])
    ).hexdigest()


# ------------------------------------------------------------------ the vocabulary


def test_vocabulary():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 18 and VOCABULARY[0] == "<pad>"
    assert VOCABULARY[EOS] == "<eos>" and VOCABULARY[CLOSE] == "X"
    assert words(range(DIGIT, OPERATOR)) == list("0123456789")
    assert words(range(OPERATOR, CLOSE)) == ["[MIN", "[MAX", "[MED", "[SM"]


# ------------------------------------------------------------------ what the generator promises


def test_share_of_trees_kept():
    exact = 0.0827553  # by convolution of the lengths' generating function, see the chapter
    share = len(ARENA.ends) / ARENA.attempts
    assert abs(share - 0.082) < 0.005
    assert abs(share - exact) < 5 * math.sqrt(exact / ARENA.attempts)


def test_quantiles_of_the_lengths():
    each = np.diff(ARENA.ends, prepend=0)
    assert each.min() > 500 and each.max() < 2000
    assert (np.abs(np.percentile(each, [5, 50, 95]) / [538, 954, 1799] - 1) < 0.03).all()
    assert abs(each.mean() - 1035) < 5 * each.std() / math.sqrt(len(each))


def test_shares_of_the_values():
    share = np.bincount(ARENA.values, minlength=10) / len(ARENA.values)
    assert np.abs(share[[0, 9]] - [0.17, 0.17]).max() < 0.02
    assert share[1:9].min() > 0.06 and share[1:9].max() < 0.105


def test_values_and_depths_by_another_parser():
    for i in range(1_000):
        text = words(ARENA.expression(i))
        value, end, depth = parse(text)
        assert (value, end) == (ARENA.values[i], len(text)) and depth <= 10
        assert value == evaluate(ARENA.expression(i))


def test_operators_digits_and_arguments_are_uniform():
    drawn = generate_listops(20_000, 1, max_depth=3, min_length=4, max_length=200)
    often = np.bincount(drawn.tokens, minlength=18)
    for part in (often[DIGIT:OPERATOR], often[OPERATOR:CLOSE]):
        assert np.abs(part / part.mean() - 1).max() < 5 / math.sqrt(part.min())
    assert often[:DIGIT].sum() == 0 and often[CLOSE] == often[OPERATOR:CLOSE].sum()


def test_all_are_different():
    texts = {ARENA.expression(i).tobytes() for i in range(len(ARENA.ends))}
    assert len(texts) == len(ARENA.ends)
    few = generate_listops(400, 0, max_depth=2, max_args=2, min_length=2, max_length=6)
    assert len({few.expression(i).tobytes() for i in range(400)}) == 400  # all there are


@pytest.mark.parametrize("workers", [2, 3])
def test_same_bytes_for_any_number_of_workers(workers):
    assert digest(generate_listops(3_000, 5, workers=workers)) == digest(generate_listops(3_000, 5))


@pytest.mark.parametrize("together", [1, 700, 30_000])
def test_same_bytes_however_many_trees_are_grown_together(monkeypatch, together):
    whole = generate_listops(100 if together > 1 else 3, 5)
    monkeypatch.setattr(listops, "_at_once", lambda shape: together)
    again = generate_listops(len(whole.ends), 5)
    assert digest(again) == digest(whole) and again.attempts == whole.attempts


@pytest.mark.parametrize("shape", [Shape(), Shape(18, 10, 500, 20_000), Shape(30, 100, 0, 10**6)])
def test_trees_grown_together_fit_in_memory(shape):
    together = listops._at_once(shape)
    assert 16 <= together <= 20_000 and (shape != Shape() or together == 20_000)
    longest = min(sum(((2 + shape.max_args) / 8) ** d for d in range(shape.max_depth)), 10**6)
    assert together * min(longest, shape.max_length) <= 2e7


def test_deep_and_long_trees():
    drawn = generate_listops(2, 0, max_depth=16, min_length=5_000, max_length=8_000)
    assert all(evaluate(drawn.expression(i)) == drawn.values[i] for i in range(2))
    assert (np.diff(drawn.ends, prepend=0) > 5_000).all()


def test_same_bytes_on_every_machine():
    assert digest(generate_listops(50, 0)).startswith("e5091dce65465685")


def test_more_of_a_seed_begins_alike_and_seeds_differ():
    few, many = generate_listops(10, 4, **SMALL), generate_listops(50, 4, **SMALL)
    assert np.array_equal(few.tokens, many.tokens[: few.ends[-1]])
    assert few.attempts <= many.attempts
    assert digest(few) != digest(generate_listops(10, 5, **SMALL))


@settings(max_examples=25, deadline=None)
@given(
    depth=st.integers(2, 7),
    args=st.integers(2, 12),
    low=st.integers(0, 3),
    more=st.integers(10, 80),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_shape_is_kept(depth, args, low, more, seed):
    shape = {"max_depth": depth, "max_args": args, "min_length": low, "max_length": low + more}
    drawn = generate_listops(7, seed, **shape)
    for i in range(7):
        text = words(drawn.expression(i))
        assert low < len(text) < low + more
        assert parse_any(text) == drawn.values[i] == evaluate(drawn.expression(i))
        nested = np.cumsum([(w[0] == "[") - (w == "X") for w in text])
        assert nested.max() <= depth - 1 and nested[-1] == 0


def parse_any(text: list[str]) -> int:
    """As `parse`, with up to 12 arguments: rewriting the innermost list until one digit is left."""
    text = list(text)
    while len(text) > 1:
        end = text.index("X")
        start = max(i for i in range(end) if text[i][0] == "[")
        args = [int(w) for w in text[start + 1 : end]]
        median = int(np.median(args))
        rules = {"[MIN": min(args), "[MAX": max(args), "[MED": median, "[SM": sum(args) % 10}
        text[start : end + 1] = [str(rules[text[start]])]
    return int(text[0])


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"count": 0}, ValueError, "want count >= 1, got 0"),
        ({"count": 2.0}, TypeError, "want count as an int"),
        ({"seed": -1}, ValueError, "want seed >= 0"),
        ({"max_depth": 1}, ValueError, "want max_depth >= 2"),
        ({"max_args": 1}, ValueError, "want max_args >= 2"),
        ({"min_length": 100, "max_length": 101}, ValueError, r"want min_length \+ 1 < max_length"),
        ({"max_depth": 2, "max_args": 3}, ValueError, "the longest has 5"),
        ({"workers": 0}, ValueError, "want workers >= 1"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        generate_listops(**({"count": 3, "seed": 0} | change))


def test_what_is_exhausted_is_said():
    with pytest.raises(RuntimeError, match="got 10 of 11 expressions, then none new"):
        generate_listops(11, 0, max_depth=2, min_length=0, max_length=2)


@pytest.mark.parametrize(
    "text",
    ["", "[MIN 1 2", "1 2", "X", "[MIN X", "1 X", "<eos>", "[MIN 1 2 X X", "[MIN 1 <pad> X"],
)
def test_no_expression(text):
    with pytest.raises(ValueError, match=r"want .*expression"):
        evaluate([VOCABULARY.index(word) for word in text.split()])


def test_fold_is_the_definition_for_draws_side_by_side():
    rng = np.random.default_rng(0)
    args = rng.integers(1, 11, 40)
    values, symbol = rng.integers(0, 10, (args.sum(), 3)), rng.integers(OPERATOR, CLOSE, 40)
    got, start = fold(symbol, args, values), 0
    for k, n in enumerate(args):
        for j in range(3):
            a = values[start : start + n, j]
            want = (a.min(), a.max(), int(np.median(a)), a.sum() % 10)[symbol[k] - OPERATOR]
            assert got[k, j] == want
        start += n


# ------------------------------------------------------------------ the ladder


def test_levels_are_read_back():
    drawn = generate_listops(200, 3, **SMALL)
    values = node_values(read_levels(drawn))
    assert np.array_equal(values[0], drawn.values)
    nodes = sum(len(level.symbol) for level in read_levels(drawn))
    assert nodes == (drawn.tokens != CLOSE).sum()


def test_the_whole_tree_known_is_no_guess():
    drawn, pool = generate_listops(100, 3, **SMALL), generate_listops(100, 4, **SMALL)
    assert known_to_depth(drawn, pool, 4, draws=2) == 1
    assert known_to_depth(drawn, pool, 99, draws=2) == 1


def test_the_ladder_of_the_arena():
    test, pool = generate_listops(2_000, 1), generate_listops(2_000, 2)
    rungs = [known_to_depth(test, pool, k, draws=32) for k in range(3)]
    assert np.abs(np.array(rungs) - [0.365, 0.51, 0.70]).max() < 0.04
    assert rungs[0] == known_to_depth(test, pool, 0, draws=32)  # and is the same again


def test_ladder_refuses():
    with pytest.raises(ValueError, match="want depth >= 0"):
        known_to_depth(ARENA, ARENA, -1)
    with pytest.raises(ValueError, match="want draws >= 1"):
        known_to_depth(ARENA, ARENA, 1, draws=0)


def test_ladder_wants_a_pool_with_such_lists():
    flat = {"max_depth": 2, "max_args": 3, "min_length": 3, "max_length": 6}
    shallow, deep = generate_listops(200, 1, **flat), generate_listops(50, 2, **SMALL)
    with pytest.raises(ValueError, match="want a pool in which such lists occur at depth 1"):
        known_to_depth(deep, shallow, 1)
    with pytest.raises(ValueError, match="want a pool in which such lists occur at depth 3"):
        known_to_depth(deep, shallow, 3)
    assert known_to_depth(shallow, deep, 1) == 1
    one = generate_listops(1, 3, **SMALL)
    with pytest.raises(ValueError, match="want a pool in which such lists occur at depth 0"):
        known_to_depth(deep, one, 0)


# ------------------------------------------------------------------ published files


def test_published_form(tmp_path):
    path = tmp_path / "basic_train.tsv"
    rows = ["( ( ( [MAX 3 ) 7 ) ] )\t7", "( ( ( ( [SM 9 ) ( ( ( [MED 1 ) 4 ) ] ) ) 0 ) ] )\t1"]
    path.write_text("Source\tTarget\n" + "\n".join(rows) + "\n")
    read = read_listops(path)
    assert words(read.expression(0)) == ["[MAX", "3", "7", "X"]
    assert [evaluate(read.expression(i)) for i in range(2)] == read.values.tolist() == [7, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[MAX 1 2 ]", "want a digit behind the tab, got ''"),
        ("[MAX 1 2 ]\t10", "want a digit behind the tab, got '10'"),
        ("[MAX 1 2 ]\t２", "want a digit behind the tab"),
        ("[AVG 1 2 ]\t1", r"got '\[AVG'"),
        ("[MAX 1 2 X\t2", "got 'X'"),
        ("[MAX 1 12 ]\t2", "got '12'"),
        ("[MAX 1 <pad> 2 ]\t2", "got '<pad>'"),
        ("[MAX 1 2 ]\t1", "want 2, which it is worth, got 1"),
        ("( [SM 5 ) ( [MED 9 2 ] ) ]\t9", "want 0, which it is worth, got 9"),
        ("[MAX 1 2\t2", "want one expression"),
        ("[MAX 1 2 ] ]\t2", "want an expression, got token"),
        ("\t1", "want one expression"),
        ("", "want a digit"),
    ],
)
def test_other_lines_are_refused_with_their_number(tmp_path, line, message):
    path = tmp_path / "basic_val.tsv"
    path.write_text(f"Source\tTarget\n[MIN 1 2 ]\t1\n{line}\n[MIN 1 2 ]\t1\n", encoding="utf-8")
    where = r"want an expression, a tab and its value in line 3 of .*basic_val.tsv; "
    with pytest.raises(DamagedData, match=where + ".*" + message):
        read_listops(path)


def test_a_file_without_lines_is_refused(tmp_path):
    path = tmp_path / "basic_val.tsv"
    path.write_text("Source\tTarget\n")
    with pytest.raises(DamagedData, match=r"want expressions in .*basic_val.tsv, got none"):
        read_listops(path)


def test_a_published_list_is_evaluated_as_a_drawn_one(tmp_path):
    drawn = generate_listops(200, 6, **SMALL)
    path = published(tmp_path, {"train": drawn}) / "basic_train.tsv"
    read = read_listops(path)
    for mine, theirs in zip(drawn[:3], read[:3], strict=True):
        assert np.array_equal(mine, theirs) and mine.dtype == theirs.dtype


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "basic_test.tsv"
    path.write_bytes(b"Source\tTarget\n[MAX 1 \xff 2 ]\t2\n")
    with pytest.raises(DamagedData, match=r"want an expression.*line 2"):
        read_listops(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_listops(tmp_path / "none.tsv")


def bracketed(tokens) -> str:
    """An expression as the arena writes it: each list nested to the left in round brackets."""
    stack: list[list[str]] = [[]]
    for word in words(tokens):
        if word.startswith("["):
            stack.append([word])
        elif word == "X":
            text, *rest = stack.pop()
            for part in [*rest, "]"]:
                text = f"( {text} {part} )"
            stack[-1].append(text)
        else:
            stack[-1].append(word)
    return stack[0][0]


def published(folder: Path, lists: dict[str, Expressions]) -> Path:
    """Write files in the published form."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, drawn in lists.items():
        rows = [f"{bracketed(drawn.expression(i))}\t{y}" for i, y in enumerate(drawn.values)]
        (folder / f"basic_{split}.tsv").write_text("\n".join(["Source\tTarget", *rows]) + "\n")
    return folder


# ------------------------------------------------------------------ the task


def small_task(folder, **change) -> ListOps:
    return ListOps(folder, **({"seed": 1, "sizes": (30, 6, 5), "workers": 1} | SMALL | change))


def test_task(tmp_path):
    task = small_task(tmp_path)
    assert (task.d_input, task.d_output, task.length, task.tokens) == (18, 10, 60, True)
    assert task.name == "listops-depth5-length60" and ListOps(tmp_path).name == "listops"
    assert not any(tmp_path.iterdir())  # nothing is written before it is wanted
    splits, drawn = task.splits(), generate_listops(41, 1, **SMALL)
    assert [len(part) for part in splits] == [30, 6, 5]
    items = [item for part in splits for item in part]
    for i, (u, y) in enumerate(items):
        assert u.dtype == y.dtype == torch.int64 and u[-1] == EOS and u.max() < 18
        assert u[:-1].tolist() == drawn.expression(i).tolist() and y == drawn.values[i]
    assert splits.val.lengths.tolist() == [len(u) for u, _ in splits.val]
    assert max(map(len, (u for u, _ in items))) <= task.length


def test_task_is_collated(tmp_path):
    task = small_task(tmp_path)
    train = task.splits().train
    batch = task.collate([train[i] for i in range(8)])
    assert batch.u.shape == (8, max(train.lengths[:8])) and batch.y.shape == (8,)
    assert batch.lengths.tolist() == train.lengths[:8].tolist()
    assert all((row[n:] == 0).all() for row, n in zip(batch.u, batch.lengths, strict=True))


def test_other_facts_other_folder(tmp_path):
    tasks = [small_task(tmp_path), small_task(tmp_path, seed=2), small_task(tmp_path, max_args=3)]
    assert len({task.shards.folder for task in tasks}) == 3
    assert small_task(tmp_path).shards.folder == tasks[0].shards.folder
    whole = small_task(tmp_path, seed=np.int64(1), sizes=tuple(np.array([30, 6, 5])))
    assert whole.shards.folder == tasks[0].shards.folder and whole.shards.facts["seed"] == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sizes": (1, 1)}, ValueError, "want sizes of train, val and test"),
        ({"sizes": (1, 1, 0)}, ValueError, "size of test >= 1"),
        ({"seed": 1.5}, TypeError, "want seed as an int"),
        ({"max_length": 3}, ValueError, "want min_length"),
        ({"workers": 0}, ValueError, "want workers >= 1"),
        ({"max_width": 3}, TypeError, "max_width"),
    ],
)
def test_task_refuses_before_it_writes(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        small_task(tmp_path, **change)
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------ the task, of published files

SIZES = (12, 4, 3)


def theirs(seed: int = 8) -> dict[str, Expressions]:
    kinds = zip(("train", "val", "test"), SIZES, strict=True)
    return {split: generate_listops(n, seed + n, **SMALL) for split, n in kinds}


def test_lists_in_round_brackets():
    drawn = generate_listops(1, 3, max_depth=2, max_args=2, min_length=2, max_length=6)
    assert bracketed(drawn.expression(0)).count("(") == 3  # two arguments and the end
    assert bracketed([OPERATOR + 1, DIGIT + 3, DIGIT + 7, CLOSE]) == "( ( ( [MAX 3 ) 7 ) ] )"


@pytest.mark.parametrize(
    "place", ["", "listops", "listops-1000", "lra_release/lra_release/listops-1000"]
)
def test_published_files_are_found_and_read(tmp_path, place):
    lists = theirs()
    published(tmp_path / place, lists)
    task = ListOps(tmp_path, source="published", sizes=SIZES)
    assert (task.name, task.d_input, task.length) == ("listops-published", 18, 2000)
    for part, drawn in zip(task.splits(), lists.values(), strict=True):
        assert len(part) == len(drawn.values)
        for i, (u, y) in enumerate(part):
            assert u[:-1].tolist() == drawn.expression(i).tolist() and u[-1] == EOS
            assert y == drawn.values[i] == parse(words(drawn.expression(i)))[0]


def test_published_and_drawn_lists_live_apart(tmp_path):
    published(tmp_path, theirs())
    tasks = [ListOps(tmp_path, source=source, sizes=SIZES) for source in ("published", "drawn")]
    assert ListOps(tmp_path, sizes=SIZES).shards.folder == tasks[1].shards.folder
    assert tasks[0].shards.folder != tasks[1].shards.folder
    assert tasks[0].shards.facts == {"source": "published", "sizes": [*SIZES]}


def test_missing_published_files_are_told_at_once(tmp_path):
    published(tmp_path / "listops", {split: theirs()[split] for split in ("train", "val")})
    with pytest.raises(MissingData) as refusal:
        ListOps(tmp_path, source="published").splits()
    parts = ("basic_train.tsv, basic_val.tsv, basic_test.tsv", str(tmp_path), "listops-1000")
    for part in (*parts, "https://storage.googleapis.com/", "no digest", 'source="drawn"'):
        assert part.replace("no digest", "none is published") in str(refusal.value)
    with pytest.raises(MissingData):
        find_listops(tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_wrong_value_is_told_with_its_line_and_nothing_is_kept(tmp_path):
    published(tmp_path, theirs())
    path = tmp_path / "basic_test.tsv"
    lines = path.read_text().splitlines()
    source, value = lines[2].split("\t")
    lines[2] = f"{source}\t{(int(value) + 1) % 10}"
    path.write_text("\n".join(lines) + "\n")
    task = ListOps(tmp_path, source="published", sizes=SIZES)
    with pytest.raises(DamagedData, match=rf"line 3 of .*basic_test.tsv; want {value}, which"):
        task.prepare()
    assert task.shards.contents() is None and not list(tmp_path.rglob("*.npy"))
    published(tmp_path, theirs())
    assert len(task.splits().test) == SIZES[2]  # repaired


def test_a_cut_published_file_is_refused(tmp_path):
    published(tmp_path, theirs())
    with pytest.raises(DamagedData, match=r"want 13 expressions in .*basic_train.tsv, got 12"):
        ListOps(tmp_path, source="published", sizes=(13, 4, 3)).prepare()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "official"}, 'want source "drawn" or "published", got \'official\''),
        ({"source": "published", "max_depth": 4}, "want published lists as they are.*max_depth=4"),
    ],
)
def test_a_source_is_one_of_two(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        ListOps(tmp_path, **change)
