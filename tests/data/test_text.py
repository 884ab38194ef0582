"""Published texts and the tasks made of them, on small files of the published forms."""

import itertools
import multiprocessing
import pickle
import zipfile

import numpy as np
import pytest
import torch

from s4lite.data.corpora import Corpus, corpus, cut_parts, read_corpus
from s4lite.data.files import DamagedData, MissingData, Source, digest_of
from s4lite.data.passages import numbered
from s4lite.data.text import Bytes, Letters, Words, count_words, number_words, text_lines

TEXT = "Ein Text, é € \U0001f600;\nder sich merkt.\n\n" * 30
SIZES = (800, 160, len(TEXT) - 960)
LINES = {
    "train": " \n = A = \n \n the cat , the <unk> .\n a b b\n" * 20,
    "valid": " the dog sat .\n \n",
    "test": "b <unk> a\n\u00a0x",  # no end of line, and a blank that is none in ASCII
}


def keep(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Source(name, "", digest_of(path))


def one_file(folder, content, sizes, **options):
    return Corpus("small", ("small",), None, (keep(folder, "small", content),), sizes, **options)


def three_files(folder):
    members = tuple(f"w/wiki.{part}.tokens" for part in LINES)
    pairs = zip(members, LINES.values(), strict=True)
    return Corpus("w", members, None, tuple(keep(folder, m, text.encode()) for m, text in pairs))


def asked(part):
    return torch.cat([y[y >= 0] for _, y in (part[k] for k in range(len(part)))]).tolist()


# ------------------------------------------------------------------ the files


@pytest.mark.parametrize(
    "name", ["enwik8", "text8", "wikitext2", "wikitext103", "tiny-shakespeare"]
)
def test_every_text_says_where_it_is_to_be_had(tmp_path, name):
    text = corpus(name)
    assert text.name == name
    with pytest.raises(MissingData) as refusal:
        read_corpus(text, tmp_path, download=False)
    source = text.archive or text.plain[0]
    for part in (source.url, source.digest, source.name, str(tmp_path)):
        assert part and part in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_unknown_texts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"want a corpus among enwik8, .* got 'enwik9'"):
        Bytes(tmp_path, corpus="enwik9")


@pytest.mark.parametrize(("kind", "name"), [(Bytes, "wikitext2"), (Letters, "wikitext103")])
def test_texts_in_three_files_are_for_words(tmp_path, kind, name):
    with pytest.raises(ValueError, match=rf"want a text in 1 file.*, got {name} in 3"):
        kind(tmp_path, corpus=name)
    with pytest.raises(ValueError, match=r"want a text in 3 file.*, got enwik8 in 1"):
        Words(tmp_path, corpus="enwik8")
    with pytest.raises(ValueError, match="parted by sizes"):
        kind(tmp_path, corpus=Corpus("x", ("x",)))


def test_archive_is_read_without_unpacking(tmp_path):
    plain = three_files(tmp_path / "plain")
    packed = tmp_path / "zip"
    packed.mkdir()
    with zipfile.ZipFile(packed / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in plain.members:
            archive.write(tmp_path / "plain" / member, member)
    zipped = Corpus("w", plain.members, Source("w.zip", "", digest_of(packed / "w.zip")))
    assert read_corpus(zipped, packed) == read_corpus(plain, tmp_path / "plain")
    assert [p.name for p in packed.iterdir()] == ["w.zip"]
    strange = Corpus("w", (*plain.members, "w/other"), zipped.archive)
    with pytest.raises(DamagedData, match=r"want .*w/other in .*w\.zip"):
        read_corpus(strange, packed)
    (packed / "w.zip").write_bytes((packed / "w.zip").read_bytes()[:-30])
    with pytest.raises(DamagedData, match="sha256"):
        read_corpus(zipped, packed)


def test_some_unpacked_files_are_not_enough(tmp_path):
    text = three_files(tmp_path)
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for member, content in zip(text.members, LINES.values(), strict=True):
            archive.writestr(member, content)
    both = Corpus("w", text.members, Source("w.zip", "", digest_of(tmp_path / "w.zip")), text.plain)
    (tmp_path / text.members[1]).unlink()
    assert read_corpus(both, tmp_path)[1] == LINES["valid"].encode()


@pytest.mark.parametrize("change", ["cut", "bit"])
def test_damaged_files_are_refused_and_left(tmp_path, change):
    task = Letters(tmp_path, corpus=one_file(tmp_path, TEXT.encode(), SIZES), length=20)
    content = bytearray(TEXT.encode())
    content = content[:-1] if change == "cut" else bytes([content[0] ^ 1]) + content[1:]
    (tmp_path / "small").write_bytes(content)
    with pytest.raises(DamagedData, match="sha256"):
        task.splits()
    assert (tmp_path / "small").read_bytes() == content and not (tmp_path / "text").exists()


def test_what_is_said_of_unpacked_files_is_true():
    """Of WikiText-103 only the zip is known by its digest; nobody is sent to unpack it."""
    two, hundred = corpus("wikitext2"), corpus("wikitext103")
    assert len(two.plain) == 3 and two.plain[0].name in two.archive.note
    assert not hundred.plain and "not unpacked" in hundred.archive.note


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "a/b"}, ValueError, "want a name that a folder may have, got 'a/b'"),
        ({"name": ".."}, ValueError, "want a name that a folder may have"),
        ({"name": ""}, ValueError, "want a name that a folder may have"),
        ({"members": ()}, ValueError, "got 0 members and 0 plain"),
        ({"members": ("a", "b"), "plain": (1,)}, ValueError, "got 2 members and 1 plain"),
        ({"sizes": (3, 2)}, ValueError, "want sizes of train, val and test"),
        ({"sizes": (3, 0, 2)}, ValueError, "want size of val >= 1"),
        ({"sizes": (3, 1.5, 2)}, TypeError, "want size of val as an int"),
        ({"alphabet": b"aba"}, ValueError, "want an alphabet with each byte once, got b'aba'"),
        ({"alphabet": b""}, ValueError, "want an alphabet"),
    ],
)
def test_a_strange_corpus_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Corpus(**({"name": "x", "members": ("x",)} | change))


def test_a_corpus_needs_files(tmp_path):
    with pytest.raises(ValueError, match="want a text with files or an archive, got x with neith"):
        read_corpus(Corpus("x", ("x",)), tmp_path)


@pytest.mark.parametrize("kind", [Letters, Words])
def test_a_text_that_is_no_text_is_refused(tmp_path, kind):
    content = b"abc \xff def\n"
    if kind is Letters:
        text = one_file(tmp_path, content, (4, 4, 4))
    else:
        members = ("w/a", "w/b", "w/c")
        text = Corpus("w", members, None, tuple(keep(tmp_path, name, content) for name in members))
    with pytest.raises(DamagedData, match=f"want {text.name} in UTF-8, got a file with .*0xff"):
        kind(tmp_path, corpus=text, length=2).prepare()
    assert not (tmp_path / "text").exists()


def test_parts_begin_with_what_was_before():
    text = Corpus("x", ("x",), sizes=(5, 3, 2))
    train, val, test = cut_parts(np.arange(10), text)
    assert (train.tolist(), val.tolist(), test.tolist()) == (
        [0, 1, 2, 3, 4],
        [4, 5, 6, 7],
        [7, 8, 9],
    )
    for n in (9, 11):
        with pytest.raises(DamagedData, match=f"want 10 symbols in x, got {n}"):
            cut_parts(np.arange(n), text)


# ------------------------------------------------------------------ bytes


@pytest.mark.parametrize("alphabet", ["corpus", "seen"])
def test_bytes(tmp_path, alphabet):
    content = bytes(np.random.default_rng(0).integers(40, 90, 1000).astype(np.uint8))
    text = one_file(tmp_path, content, (700, 200, 100))
    task = Bytes(tmp_path, corpus=text, alphabet=alphabet, length=32, context=9)
    train, val, test = task.splits()
    assert (task.name, task.metric, task.tokens, task.length) == ("small", "bpc", True, 32)
    kinds = 256 if alphabet == "corpus" else len({*content[:700]})
    assert task.d_input == task.d_output == kinds
    for part, own in ((val, content[700:900]), (test, content[900:])):
        assert task.decode(np.array(asked(part))) == own  # each byte of it once
    assert task.decode(task.symbols("val")) == content[699:900]
    assert task.decode(task.symbols("test")) == content[899:]
    u, y = train[2]
    assert task.decode(u) == content[64:96] and task.decode(y) == content[65:97]
    assert len(train) == 699 // 32
    assert task.encode(content[:50]).tolist() == task.symbols("train")[:50].tolist()
    assert abs(task.bits_per_byte(1.5) - 1.5) < 1e-15


def test_seen_bytes_are_those_of_training(tmp_path):
    text = one_file(tmp_path, b"aab" * 10 + b"c" * 5 + b"a" * 5, (30, 5, 5))
    assert Bytes(tmp_path, corpus=text, length=5).splits().val[0][1].tolist() == [99] * 5
    with pytest.raises(ValueError, match="want symbols among the 2 known, got number 99"):
        Bytes(tmp_path, corpus=text, alphabet="seen", length=5).splits()


def test_an_alphabet_is_kept_to(tmp_path):
    letters = b" abcdefghijklmnopqrstuvwxyz"
    assert corpus("text8").alphabet == letters
    text = one_file(tmp_path, b"the cat sat on the mat ", (15, 4, 4), alphabet=letters)
    task = Bytes(tmp_path, corpus=text, length=4)
    assert task.d_input == 27 and task.symbols("train")[:4].tolist() == [20, 8, 5, 0]
    other = one_file(tmp_path, b"the cat sat on the Mat ", (15, 4, 4), alphabet=letters)
    with pytest.raises(ValueError, match="want symbols among the 27 known, got number 77"):
        Bytes(tmp_path, corpus=other, length=4).prepare()


def test_the_same_file_under_another_alphabet_is_another_cache(tmp_path):
    content = b"abcaab" * 10
    for alphabet in (b"abc", b"cba"):
        text = one_file(tmp_path, content, (40, 10, 10), alphabet=alphabet)
        task = Bytes(tmp_path, corpus=text, length=4)
        assert task.decode(task.symbols("train")) == content[:40]
        assert task.symbols("train")[:3].tolist() == [alphabet.index(x) for x in b"abc"]


# ------------------------------------------------------------------ letters


def test_letters(tmp_path):
    task = Letters(tmp_path, corpus=one_file(tmp_path, TEXT.encode(), SIZES), length=40)
    _, val, test = task.splits()
    assert task.d_input == len(set(TEXT)) and task.metric == "bpc" and task.context == 20
    assert task.decode(np.array(asked(val))) == TEXT[800:960]
    assert task.decode(np.array(asked(test))) == TEXT[960:]
    assert "".join(map(chr, task.vocabulary())) == "".join(sorted(set(TEXT)))
    assert task.decode(task.encode("der Text")) == "der Text"
    ratio = len(TEXT[960:]) / len(TEXT[960:].encode())
    assert abs(task.bits_per_byte(2.0) - 2 * ratio) < 1e-12 and ratio < 0.9
    with pytest.raises(ValueError, match="want symbols among"):
        task.encode("Q")


# ------------------------------------------------------------------ words


def test_lines_are_split_at_any_blank_and_ended():
    assert [*text_lines(b"a  b\n\n c\n")] == [["a", "b"], [], ["c"]]
    assert [*text_lines("a\u00a0b\u3000c".encode())] == [["a", "b", "c"]]  # as str.split does
    assert [*text_lines(b"")] == []


def test_vocabulary_is_by_frequency_and_then_alphabet():
    assert count_words(b"b a\nb c <unk> <unk> <unk>\n") == ["<eos>", "<unk>", "b", "a", "c"]
    assert number_words(b"c d\nb", ["<eos>", "<unk>", "b", "a", "c"]).tolist() == [0, 4, 1, 0, 2, 0]


def test_words(tmp_path):
    task = Words(tmp_path, corpus=three_files(tmp_path), length=3, context=1)
    _, val, test = task.splits()
    words = task.vocabulary()
    assert words[:4] == ["<eos>", "<unk>", "=", "b"] and len(words) == task.d_input
    assert {*words} == {*LINES["train"].split(), "<eos>"}
    spoken = [words[i] for i in asked(val)]
    assert spoken == ["the", "<unk>", "<unk>", ".", "<eos>", "<eos>"]
    assert [words[i] for i in asked(test)] == ["b", "<unk>", "a", "<eos>", "<unk>", "<eos>"]
    lines = LINES["train"].split("\n")[:-1]
    assert len(task.symbols("train")) == 1 + sum(len(line.split()) + 1 for line in lines)
    size = len(LINES["test"].encode())
    assert task.metric == "perplexity" and abs(task.bits_per_byte(3.0) - 18 / size) < 1e-12
    assert task.decode(task.encode("the cat\n\nb\n")) == "the cat\n\nb\n"
    assert task.encode("the cat\n\nb").tolist() == task.encode("the  cat\n \n b\n").tolist()


def test_the_same_archive_with_other_members_is_another_cache(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for member, content in (("a", "one two\n" * 9), ("b", "two\n" * 5), ("c", "one\n" * 5)):
            archive.writestr(member, content)
    source = Source("w.zip", "", digest_of(tmp_path / "w.zip"))
    for members, want in ((("a", "b", "c"), "two"), (("a", "c", "b"), "one")):
        task = Words(tmp_path, corpus=Corpus("w", members, source), length=2)
        assert task.vocabulary()[task.symbols("val")[1]] == want


# ------------------------------------------------------------------ all of them


def test_decode_does_not_take_what_is_not_asked(tmp_path):
    """-100 in y is no symbol; numpy would count it from the end of the list."""
    letters = Letters(tmp_path, corpus=one_file(tmp_path, TEXT.encode(), SIZES))
    for task in (letters, Words(tmp_path, corpus=three_files(tmp_path))):
        assert task.decode([]) == ""
        for strange in (-100, -1, task.d_input):
            with pytest.raises(ValueError, match=rf"want symbols 0 \.\. .*, got {strange}$"):
                task.decode(torch.tensor([1, strange]))
    task = Bytes(tmp_path, download=False)  # all 256: it needs no file
    assert task.decode([255, 0]) == b"\xff\x00" and task.decode([]) == b""
    with pytest.raises(ValueError, match=r"want symbols 0 \.\. 255, got -100"):
        task.decode(np.array([1, -100]))
    with pytest.raises(TypeError, match=r"want symbols \(n,\) of ints"):
        task.decode(np.array([0.5]))


def test_a_strange_split_is_refused_before_anything_is_read(tmp_path):
    task = Letters(tmp_path, download=False)
    for call in (task.symbols, lambda split: task.bits_per_byte(1.0, split)):
        with pytest.raises(ValueError, match="want a split among train, val, test"):
            call("valid")


@pytest.mark.parametrize("context", [None, 0, 7, 31])
def test_context_and_stride(tmp_path, context):
    text = one_file(tmp_path, TEXT.encode(), SIZES)
    task = Letters(tmp_path, corpus=text, length=32, context=context, stride=5)
    train, val, _ = task.splits()
    assert task.context == (16 if context is None else context)
    assert len(train) == 1 + (799 - 32) // 5
    for k in range(1, len(val)):
        y = val[k][1]
        assert (y[: task.context] == -100).all() and y[-1] >= 0
    assert f"scored with {task.context} of context" in repr(task)


def test_part_takes_the_beginnings(tmp_path):
    text = one_file(tmp_path, TEXT.encode(), SIZES)
    whole = Letters(tmp_path, corpus=text, length=16)
    part = Letters(tmp_path, corpus=text, length=16, part=(100, 50, 10_000))
    assert part.name == "small-part" and "small-part" in repr(part)
    assert part.shards.folder == whole.shards.folder
    assert len(part.symbols("train")) == 101 and len(part.symbols("val")) == 51
    assert asked(part.splits().val) == asked(whole.splits().val)[:50]
    assert asked(part.splits().test) == asked(whole.splits().test)
    assert part.bits_per_byte(1.0, "val") == whole.bits_per_byte(1.0, "val")


def test_what_depends_on_the_text_alone_is_written_once(tmp_path):
    text = one_file(tmp_path, TEXT.encode(), SIZES)
    Letters(tmp_path, corpus=text, length=16).prepare()
    (folder,) = (tmp_path / "text").iterdir()
    times = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    parts = {f"{name}.npy" for name in ("bytes", "test", "train", "val", "vocabulary")}
    assert {*times} == parts | {"contents.json"}
    (tmp_path / "small").unlink()  # not needed any more
    Letters(tmp_path, corpus=text, length=9, context=0, part=(50, 20, 20)).splits()
    assert times == {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    with pytest.raises(MissingData):
        Bytes(tmp_path, corpus=text, length=9).prepare()  # another kind: another folder


@pytest.mark.parametrize("name", ["train.npy", "vocabulary.npy"])
def test_a_cut_cache_is_refused(tmp_path, name):
    text = one_file(tmp_path, TEXT.encode(), SIZES)
    task = Letters(tmp_path, corpus=text, length=16)
    task.prepare()
    path = task.shards.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedData, match=f"want .*{name} with"):
        _ = (task.splits(), task.d_input)


def test_half_a_cache_is_completed(tmp_path, monkeypatch):
    text = one_file(tmp_path, TEXT.encode(), SIZES)
    task = Letters(tmp_path, corpus=text, length=16)
    whole, write = itertools.count(), task.shards.write

    def fail(name, make):
        if next(whole) == 3:
            raise OSError(28, "No space left on device")
        write(name, make)

    monkeypatch.setattr(task.shards, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        task.splits()
    assert task.shards.contents() is None
    monkeypatch.undo()
    again = Letters(tmp_path, corpus=text, length=16)
    assert again.decode(np.array(asked(again.splits().test))) == TEXT[960:]
    assert not [*again.shards.folder.glob(".*")]


def prepare(task):
    task.prepare()
    return len(task.symbols("train"))


def test_two_processes_at_once(tmp_path):
    task = Letters(tmp_path, corpus=one_file(tmp_path, TEXT.encode(), SIZES), length=16)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(prepare, [task, task]) == [800, 800]
    assert task.decode(np.array(asked(task.splits().val))) == TEXT[800:960]


def test_splits_travel_to_other_processes(tmp_path):
    task = Words(tmp_path, corpus=three_files(tmp_path), length=3)
    train = task.splits().train
    sent = pickle.dumps(train)
    assert len(sent) < 5_000 + 16 * len(train)
    assert torch.equal(pickle.loads(sent)[1][0], train[1][0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": 0}, ValueError, "want length >= 1"),
        ({"length": 2.5}, TypeError, "want length as an int"),
        ({"context": 16}, ValueError, "want context >= 0 and <= 15"),
        ({"stride": 0}, ValueError, "want stride >= 1"),
        ({"part": (1, 2)}, ValueError, "want part as three numbers"),
        ({"part": (1, 0, 2)}, ValueError, "want part of val >= 1"),
    ],
)
def test_options_are_checked(tmp_path, change, error, message):
    for kind in (Bytes, Letters, Words):
        with pytest.raises(error, match=message):
            kind(tmp_path, **({"length": 16} | change))
    assert not any(tmp_path.iterdir())


def test_more_is_refused(tmp_path):
    with pytest.raises(ValueError, match='want alphabet "corpus" or "seen"'):
        Bytes(tmp_path, alphabet="all")
    task = Letters(tmp_path, corpus=one_file(tmp_path, TEXT.encode(), SIZES), length=161)
    with pytest.raises(ValueError, match=r"want windows of at most 160, .*of val, got 161"):
        task.splits()
    for call in (task.symbols, lambda split: task.bits_per_byte(1.0, split)):
        with pytest.raises(ValueError, match="want a split among train, val, test"):
            call("valid")


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint32])
def test_numbered(kind):
    parts = [np.array([9, 3, 3], kind), np.array([], kind), np.array([5], kind)]
    found = numbered(parts, np.array([3, 5, 9], kind))
    assert [each.tolist() for each in found] == [[2, 0, 0], [], [1]]
    assert all(each.dtype == np.uint8 for each in found)
    wide = numbered([np.arange(300)], np.arange(300))[0]
    assert wide.dtype == np.uint16 and wide[299] == 299
    assert numbered([np.arange(256)], np.arange(256))[0].dtype == np.uint8
    with pytest.raises(ValueError, match="want symbols among the 2 known, got number 9"):
        numbered(parts, np.array([3, 5], kind))
