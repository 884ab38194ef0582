"""Text, Retrieval and its stand-in: small files of the published form; the real ones if named."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from s4lite.data import documents
from s4lite.data.documents import Characters, Text, code_points, imdb, read_reviews
from s4lite.data.files import DamagedData, MissingData, Source, digest_of
from s4lite.data.retrieval import Retrieval, RetrievalStandIn, draw_pair

REAL = os.environ.get("S4LITE_DATA_DIR", "")


def review(i: int, kind: str) -> str:
    word = {"pos": "fine", "neg": "poor"}[kind]
    return f"<br />A {word} film, é\u0085 number {i}. " + "x" * (7 * i)


def reviews(folder: Path, each: int = 30) -> Path:
    for split in ("train", "test"):
        for kind in ("pos", "neg"):
            place = folder / "aclImdb" / split / kind
            place.mkdir(parents=True)
            for i in range(each):
                text = review(i, kind) + split[:2]
                (place / f"{i}_{8 if kind == 'pos' else 2}.txt").write_bytes(text.encode())
    return folder


# ------------------------------------------------------------------ characters


def test_vocabulary_is_by_frequency_and_then_alphabet():
    characters = Characters(["bbba", "cca", "\U0001f600"], min_freq=2)
    assert characters.characters == "bac" and len(characters) == 6
    assert characters.encode("abc?\U0001f600").tolist() == [4, 3, 5, 1, 1]
    assert characters.encode("").tolist() == []


@pytest.mark.parametrize("text", ["", "plain", "é\u0085\u2028", "\U0001f600x", "\ud800"])
def test_code_points(text):
    assert code_points(text).tolist() == [ord(each) for each in text]


def test_large_vocabularies_have_room():
    characters = Characters([chr(0x4E00 + i) for i in range(1000)])
    assert characters.encode(chr(0x4E00 + 999)).tolist() == [1002]


def test_min_freq_is_checked():
    with pytest.raises(ValueError, match="want min_freq >= 1"):
        Characters(["a"], 0)


# ------------------------------------------------------------------ reviews


def test_reviews_in_the_order_of_their_numbers(tmp_path):
    texts = read_reviews(reviews(tmp_path), each=30)
    assert list(texts) == ["train/neg", "train/pos", "test/neg", "test/pos"]
    assert texts["test/pos"] == [review(i, "pos") + "te" for i in range(30)]


def test_archive_is_read_without_unpacking(tmp_path, monkeypatch):
    reviews(tmp_path / "unpacked")
    archive = tmp_path / "data" / "aclImdb_v1.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "unpacked" / "aclImdb", "aclImdb")
        extra = tarfile.TarInfo("aclImdb/train/unsup/0_0.txt")
        extra.size = 3
        tar.addfile(extra, io.BytesIO(b"not"))
    source = Source("aclImdb_v1.tar.gz", "", digest_of(archive, "md5"))
    monkeypatch.setattr(documents, "imdb", lambda: source)
    assert read_reviews(archive.parent, each=30) == read_reviews(tmp_path / "unpacked", each=30)
    archive.write_bytes(archive.read_bytes()[:-7])
    with pytest.raises(DamagedData, match="md5:"):
        read_reviews(archive.parent)
    assert [p.name for p in archive.parent.iterdir()] == [archive.name]


def test_missing_reviews(tmp_path):
    with pytest.raises(MissingData) as refusal:
        Text(tmp_path, download=False).prepare()
    for part in (imdb().url, imdb().digest, str(tmp_path), "aclImdb"):
        assert part in str(refusal.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["one fewer", "no text", "no folder"])
def test_damaged_reviews(tmp_path, damage):
    folder = reviews(tmp_path) / "aclImdb" / "train" / "pos"
    if damage == "one fewer":
        (folder / "3_8.txt").unlink()
    elif damage == "no text":
        (folder / "3_8.txt").write_bytes(b"\xff\xfe broken")
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    with pytest.raises(DamagedData, match="want 30 reviews in each part"):
        Text(tmp_path, each=30).prepare()
    assert not (tmp_path / "text").exists()


# ------------------------------------------------------------------ Text


def test_text(tmp_path):
    task = Text(reviews(tmp_path), each=30, length=100, min_freq=3)
    splits = task.splits()
    assert (task.name, task.tokens, task.d_output, task.length) == ("text", True, 2, 100)
    assert [len(part) for part in splits] == [54, 6, 60] and task.d_input == 135
    u, y = splits.test[0]  # test/neg 0
    want = (review(0, "neg") + "te")[:99]
    characters = Characters((t[:99] for k in ("neg", "pos") for t in train_texts(k)), 3)
    assert u.tolist() == [*characters.encode(want).tolist(), 2] and y == 0
    assert max(len(u) for u, _ in (splits.test[i] for i in range(60))) == 100
    assert sum(int(splits.test[i][1]) for i in range(60)) == 30


def train_texts(kind: str) -> list[str]:
    return [review(i, kind) + "tr" for i in range(30)]


def test_held_out_and_published_validation(tmp_path):
    right = Text(reviews(tmp_path), each=30).splits()
    published = Text(tmp_path, each=30, validation="test").splits()
    assert [len(part) for part in published] == [60, 60, 60] and published.val is published.test
    rows = {*right.train.rows.tolist()}
    assert not rows & {*right.val.rows.tolist()} and len(rows) == 54
    again = Text(tmp_path, each=30).splits()
    assert np.array_equal(again.val.rows, right.val.rows)
    assert "held-out" in repr(Text(tmp_path)) and "test" in repr(Text(tmp_path, validation="test"))


def test_vocabulary_is_that_of_the_training_reviews(tmp_path):
    task = Text(reviews(tmp_path), each=30, min_freq=1)
    rows = [task.splits().test[i][0] for i in range(60)]
    assert all((u[:-1] >= 3).any() for u in rows)
    assert (rows[0] == 1).sum() == 0 and "e" in "".join(train_texts("pos"))
    rare = Text(tmp_path, each=30, min_freq=10_000)
    assert (rare.splits().test[0][0][:-1] == 1).all()  # everything is unknown


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"validation": "train"}, ValueError, 'want validation "held-out" or "test"'),
        ({"length": 1}, ValueError, "want length >= 2"),
        ({"min_freq": 0}, ValueError, "want min_freq >= 1"),
        ({"length": 10.0}, TypeError, "want length as an int"),
    ],
)
def test_text_refuses(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        Text(tmp_path, **change)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(REAL) / "aclImdb").is_dir() or not REAL, reason="S4LITE_DATA_DIR names no aclImdb"
)
def test_the_real_reviews(tmp_path):
    (tmp_path / "aclImdb").symlink_to(Path(REAL) / "aclImdb")
    task = Text(tmp_path)
    held, published = task.splits(), Text(tmp_path, validation="test").splits()
    assert [len(part) for part in held] == [22_500, 2_500, 25_000]
    assert [len(part) for part in published] == [25_000, 25_000, 25_000]
    assert task.d_input == 135
    ids = {
        int(i) for part in (published.train, held.test) for i in np.unique(part._array("tokens"))
    }
    assert max(ids) == 133 and 1 in ids  # 131 characters behind three marks
    assert published.train.lengths.max() == 4096 and held.test.lengths.max() == 4096
    y = published.train._array("y")
    assert len(y) == 25_000 and y.sum() == 12_500
    plain, pooled = (waste(held.train.lengths, pool) for pool in (1, 100))
    assert plain > 0.6 and pooled < 0.03


def waste(lengths, pool: int) -> float:
    from s4lite.data.buckets import BucketSampler, padding_waste

    return padding_waste(lengths, BucketSampler(lengths, 32, pool=pool))


# ------------------------------------------------------------------ Retrieval

ROWS = {
    "train": ["1.0\tP01\tP02\tb'on parsing'\tb'parsing, fast'", "0\tP1\tP3\tabc\tdef é"],
    "eval": ["1\tA\tB\tx\ty", "0.0\tC\tD\tseen Q\tdef"],
    "test": ["0\tA\tB\t" + "long " * 40 + "\tb"],
}


def papers(folder: Path, place: str = "aan") -> Path:
    (folder / place).mkdir(parents=True, exist_ok=True)
    for split, rows in ROWS.items():
        path = folder / place / f"new_aan_pairs.{split}.tsv"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "aan", "tsv_data", "lra_release/lra_release/tsv_data"])
def test_retrieval(tmp_path, place):
    task = Retrieval(papers(tmp_path, place), length=50)
    splits = task.splits()
    assert [len(part) for part in splits] == [2, 2, 1] and task.pairs and task.tokens
    (a, b), y = splits.train[0]
    assert len(a) == len("b'on parsing'") + 1 and a[-1] == b[-1] == 2 and y == 1
    assert splits.val[1][0][0].tolist().count(1) == 1  # Q was never seen in training
    assert len(splits.test[0][0][0]) == 50
    seen = set("".join(part for row in ROWS["train"] for part in row.split("\t")[3:]))
    assert task.d_input == 3 + len(seen)
    batch = task.collate([splits.train[0], splits.train[1]])
    assert batch.u.shape[0] == 4 and batch.y.tolist() == [1, 0]
    assert torch.equal(batch.u[2, : len(b)], b)  # all first documents, then all second ones
    assert batch.lengths.tolist() == [len(a), 4, len(b), 6]


def test_missing_papers(tmp_path):
    with pytest.raises(MissingData) as refusal:
        Retrieval(tmp_path).splits()
    for part in ("new_aan_pairs.train.tsv", str(tmp_path), "lra_release.gz", "RetrievalStandIn"):
        assert part in str(refusal.value)
    papers(tmp_path)
    (tmp_path / "aan" / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(MissingData):
        Retrieval(tmp_path).splits()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "it is empty"), (b"1\tA\tB\tx\ty\n0\tA\tB\t\xff\ty\n", "cannot be read")],
)
def test_papers_that_are_no_text(tmp_path, data, message):
    papers(tmp_path)
    (tmp_path / "aan" / "new_aan_pairs.train.tsv").write_bytes(data)
    with pytest.raises(DamagedData, match=rf"want lines of label.*{message}"):
        Retrieval(tmp_path).splits()


@pytest.mark.parametrize("row", ["1\tA\tB\tonly four", "2\tA\tB\tx\ty", "label\ta\tb\tx\ty", ""])
def test_damaged_papers(tmp_path, row):
    papers(tmp_path)
    path = tmp_path / "aan" / "new_aan_pairs.eval.tsv"
    path.write_text(ROWS["eval"][0] + "\n" + row + "\n")
    task = Retrieval(tmp_path)
    with pytest.raises(DamagedData, match=r"want lines of label.*line 2"):
        task.splits()
    assert task.shards.contents() is None


def test_length_is_checked(tmp_path):
    with pytest.raises(ValueError, match="want length >= 2"):
        Retrieval(tmp_path, length=1)


# ------------------------------------------------------------------ the stand-in


def test_stand_in_says_what_it_is(tmp_path):
    task = RetrievalStandIn(tmp_path, sizes=(20, 5, 5), length=300)
    assert "stand-in" in task.name and "not Retrieval" in repr(task) and "generated" in repr(task)
    splits = task.splits()
    assert [len(part) for part in splits] == [20, 5, 5] and task.d_input == 3 + 20
    for part in splits:
        for i in range(len(part)):
            (a, b), y = part[i]
            assert 200 <= len(a) <= 300 and 200 <= len(b) <= 300 and int(y) in (0, 1)
            assert 1 not in a and 1 not in b


def test_stand_in_is_drawn_by_number():
    assert draw_pair(0, 5, 200) == draw_pair(0, 5, 200) != draw_pair(1, 5, 200)
    assert len({draw_pair(0, i, 200)[1] for i in range(50)}) == 50


def test_stand_in_is_the_same_on_every_machine():
    drawn = "".join(
        text for i in range(20) for _, *both in [draw_pair(2, i, 3999)] for text in both
    )
    assert hashlib.sha256(drawn.encode()).hexdigest().startswith("22c79edf0b97fcb8")


def test_stand_in_with_few_topics_that_are_told_often(tmp_path):
    """Every word is of one of two topics: the first words alone give the label."""
    pairs = [draw_pair(0, i, 150, topics=2, every=1) for i in range(60)]
    assert (
        pairs == [draw_pair(0, i, 150, topics=2, every=1) for i in range(60)]
        and len({word for _, *both in pairs for text in both for word in text.split()[:-1]})
        == 2 * 12
    )
    found = [not {*a.split()[:-1]}.isdisjoint(b.split()[:-1]) for _, a, b in pairs]
    assert found == [bool(y) for y, _, _ in pairs] and 15 < sum(found) < 45
    likes = {"sizes": (4, 2, 2), "length": 151}
    few, many = (RetrievalStandIn(tmp_path, topics=t, every=1, **likes) for t in (2, 500))
    (a, _), y = few.splits().train[0]
    assert few.shards.folder != many.shards.folder
    assert y == pairs[0][0] and len(a) == len(pairs[0][1]) + 1


def test_stand_in_needs_both_documents():
    """Word counts of one document leave a linear reader at chance; words in common do not."""
    pairs = [draw_pair(3, i, 2000) for i in range(400)]
    label = np.array([y for y, _, _ in pairs])
    words = sorted({w for _, a, _ in pairs for w in a.split()})
    place = {w: i for i, w in enumerate(words)}
    X = np.zeros((400, len(words)))
    for i, (_, a, _) in enumerate(pairs):
        for w in a.split():
            X[i, place[w]] += 1
    gram = X[:200] @ X[:200].T + 10 * np.eye(200)
    guess = X[200:] @ X[:200].T @ np.linalg.solve(gram, 2.0 * label[:200] - 1)
    assert abs(((guess > 0) == label[200:]).mean() - 0.5) < 4 * 0.5 / 200**0.5
    often = {w for w in words if (X[:, place[w]] > 0).mean() > 0.02}
    common = [len(({*a.split()} & {*b.split()}) - often) for _, a, b in pairs]
    assert np.mean([c for c, y in zip(common, label, strict=True) if y]) > 1.0 + np.mean(
        [c for c, y in zip(common, label, strict=True) if not y]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 99}, "want length >= 100"),
        ({"sizes": (1, 1)}, "want sizes"),
        ({"seed": -1}, "seed"),
        ({"topics": 1}, "want topics >= 2 and <= 500"),
        ({"topics": 501}, "want topics >= 2 and <= 500"),
        ({"every": 0}, "want every >= 1"),
    ],
)
def test_stand_in_refuses(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        RetrievalStandIn(tmp_path, **change)
