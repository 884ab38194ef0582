"""Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb)."""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from s4lite.data.documents import SPECIAL, Characters, write_texts
from s4lite.data.draws import below, check_sizes, check_whole, child, unit
from s4lite.data.files import DamagedData
from s4lite.data.release import find_release
from s4lite.data.shards import TokenTask, open_shard, shards_in

__all__ = ["PairTask", "Retrieval", "RetrievalStandIn", "draw_pair", "find_pairs", "read_pairs"]


"""Retrieval: two documents, read letter by letter; does one cite the other?"""


def find_pairs(data_dir: Path) -> dict[str, Path]:
    """Find the AAN files new_aan_pairs.{train,eval,test}.tsv in a folder or its usual places.

    Returns:
        dict  "train", "val", "test" -> path
    Raises:
        MissingData: if they are not all in one place.
    """
    files = {
        s: f"new_aan_pairs.{f}.tsv"
        for s, f in (("train", "train"), ("val", "eval"), ("test", "test"))
    }
    without = (
        "Without them there is RetrievalStandIn: generated pairs, whose results are not those of "
        "Retrieval."
    )
    return find_release(data_dir, files, "tsv_data", "aan", without)


def read_pairs(path: Path, length: int) -> Iterator[tuple[int, str, str]]:
    """Read a file of pairs: label, and the first length - 1 characters of both texts.

    Raises:
        DamagedData: if a line has not five columns, its label is neither 0 nor 1, or it is no
            text; or if there is no line.
    """
    number, form = 0, f"want lines of label, id, id, text, text parted by tabs in {path}; "
    with open(path, encoding="utf-8", newline="\n") as file:
        try:
            for number, line in enumerate(file, 1):
                columns = line.rstrip("\r\n").split("\t")
                if len(columns) != 5 or columns[0] not in ("0", "1", "0.0", "1.0"):
                    got = f"line {number} has {len(columns)} columns and begins {line[:40]!r}"
                    raise DamagedData(form + got)
                yield int(float(columns[0])), columns[3][: length - 1], columns[4][: length - 1]
        except UnicodeDecodeError as error:
            raise DamagedData(f"{form}behind line {number} it cannot be read ({error})") from error
    if not number:
        raise DamagedData(form + "it is empty")


class PairTask(TokenTask):
    """What tasks of pairs have in common; `_texts` gives a split's triples (label, text, text)."""

    d_output, pairs = 2, True

    def _texts(self, split: str) -> Iterable[tuple[int, str, str]]:
        raise NotImplementedError

    @property
    def d_input(self) -> int:
        """Size of the vocabulary, 98 with the published pairs; prepares them if need be."""
        self.prepare()
        return SPECIAL + len(open_shard(self.shards, "characters.npy"))

    def _write(self) -> None:
        characters = Characters(text for _, *both in self._texts("train") for text in both)
        for split in ("train", "val", "test"):
            y: list[int] = []
            write_texts(self.shards, split, self._sides(split, y), y, characters, self.length)
        self.shards.write("characters.npy", lambda: characters.codes)

    def _sides(self, split: str, y: list[int]) -> Iterator[str]:
        for label, *both in self._texts(split):
            y.append(label)
            yield from both


class Retrieval(PairTask):
    """The task Retrieval: does one of two papers of the ACL Anthology cite the other?

    Args:
        data_dir  path | None  with the published files, see `find_pairs`
        length    int          longest sequence, with <eos>; 4000 as published
        download  bool         unused: 7.7 GB are fetched by hand
    Raises:
        TypeError, ValueError: if length is no int, or < 2.
    """

    name = "retrieval"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        length: int = 4000,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        check_whole(2, length=length)
        self.length = length
        self.shards = shards_in(self.data_dir / "retrieval", self.name, {"length": length})

    def _texts(self, split: str) -> Iterable[tuple[int, str, str]]:
        return read_pairs(find_pairs(self.data_dir)[split], self.length)

    def __repr__(self) -> str:
        return f"<{self.name}: pairs of {self.length:,} characters to 2>"


_WORDS = 2000  # usual words in the language
_TOPICS = 500
_RARE = 12  # words that tell a topic, of each


def _invented(keys: np.ndarray) -> list[str]:
    """Invent a word of two to four syllables for each key (n,)."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    count = 2 + below(child(keys, 0), 3)
    picks = below(child(keys[:, None], 1 + np.arange(4)), len(syllables)).tolist()
    return ["".join(syllables[j] for j in row[:n]) for row, n in zip(picks, count, strict=True)]


@functools.cache
def _language(seed: int) -> np.ndarray:
    """All words, no two of them the same: the usual ones, then those of each topic."""
    wanted = _WORDS + _TOPICS * _RARE
    words = dict.fromkeys(_invented(child(child(seed, 2), np.arange(2 * wanted))))
    return np.array([*words][:wanted], dtype=object)


def draw_pair(
    seed: int, i: int, length: int, topics: int = _TOPICS, every: int = 30
) -> tuple[int, str, str]:
    """Draw a pair of documents in an invented language: label 1 if they are on the same topic.

    Args:
        seed, i  int  which pair of which draw
        length   int  characters of a document, between two thirds of it and all of it
        topics   int  that there are, 2 to 500
        every    int  one word in so many tells the topic
    Returns:
        label, text, text  no document alone tells the label
    """
    key = child(child(seed, 3), i)
    label = int(below(child(key, 0), 2))
    topic = below(child(key, 1), topics)
    other = (topic + 1 + below(child(key, 2), topics - 1)) % topics
    words, texts = _language(seed), []
    for side, subject in enumerate((topic, topic if label else other)):
        at = child(child(key, 4 + side), np.arange(length // 5 + 1))  # a word has 4 letters or more
        usual = (_WORDS ** unit(child(at, 0))).astype(np.int64)  # word r about as often as 1 / r
        rare = _WORDS + subject * _RARE + below(child(at, 1), _RARE)
        text = " ".join(words[np.where(below(child(at, 2), every) == 0, rare, usual)])
        texts.append(text[: length - int(below(child(key, 6 + side), max(1, length // 3)))])
    return label, texts[0], texts[1]


class RetrievalStandIn(PairTask):
    """A stand-in for Retrieval where its files are not to be had: invented pairs of documents.

    Args:
        data_dir  path | None  where the pairs are kept
        seed      int          of the draw
        sizes     (3,)         of train, val, test
        length    int          longest sequence, with <eos>
        topics, every  int     as for `draw_pair`
        download  bool         unused
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Its results say nothing about Retrieval; name and repr say so.
    """

    name = "retrieval-stand-in"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        sizes: tuple[int, int, int] = (8_000, 1_000, 1_000),
        length: int = 4000,
        topics: int = _TOPICS,
        every: int = 30,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        check_whole(0, 2**63 - 1, seed=seed), check_sizes(sizes), check_whole(100, length=length)
        check_whole(2, _TOPICS, topics=topics), check_whole(every=every)
        self.seed, self.sizes, self.length = seed, tuple(sizes), length
        self.topics, self.every = topics, every
        facts = {"draw": 1, "seed": seed, "sizes": self.sizes, "length": length}
        facts |= {"topics": topics, "every": every}
        self.shards = shards_in(self.data_dir / "retrieval", self.name, facts)

    def _texts(self, split: str) -> Iterable[tuple[int, str, str]]:
        which = ("train", "val", "test").index(split)
        first = sum(self.sizes[:which])
        numbers = range(first, first + self.sizes[which])
        likes = {"length": self.length - 1, "topics": self.topics, "every": self.every}
        return (draw_pair(self.seed, i, **likes) for i in numbers)

    def __repr__(self) -> str:
        return f"<{self.name}: generated pairs of {self.length:,} characters to 2, not Retrieval>"
