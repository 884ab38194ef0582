"""Language modelling: which symbol comes next? Bytes, letters and words.

Home: chapter 21, "Language" (chapters/21_language.ipynb).
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from s4lite.data.corpora import Corpus, cut_parts
from s4lite.data.counts import check_symbols
from s4lite.data.documents import code_points
from s4lite.data.passages import WindowedText, numbered

__all__ = ["Bytes", "Letters", "Words", "count_words", "number_words", "text_lines"]


class Bytes(WindowedText):
    """A file, byte by byte: which byte comes next?  Scored in bits per byte.

    Args:
        data_dir  path | None   with the file or its zip; None for the user's cache
        corpus    str | Corpus  "enwik8" (256 kinds of bytes) or "text8" (27)
        alphabet  str           "corpus": all that may occur; or, as often published, "seen": those
                                of the training part, 205 in enwik8
        length    int           bytes a window
        options   any           context, stride, part, download: as for `TextPart`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: our eq-language-bits, eq-language-windows.
    """

    metric = "bpc"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        corpus: str | Corpus = "enwik8",
        alphabet: str = "corpus",
        length: int = 1024,
        **options: Any,
    ) -> None:
        if alphabet not in ("corpus", "seen"):
            raise ValueError(f'want alphabet "corpus" or "seen", got {alphabet!r}')
        facts = {"kind": "bytes", "alphabet": alphabet}
        super().__init__(data_dir, corpus, length=length, facts=facts, **options)
        self.alphabet = alphabet

    def vocabulary(self) -> np.ndarray:
        """The bytes, as whole numbers, in the order of their numbers."""
        if self.alphabet == "seen":
            return super().vocabulary()
        return np.frombuffer(self.text.alphabet, np.uint8)

    def _encode(self, contents: tuple[bytes, ...]) -> dict[str, np.ndarray]:
        parts = cut_parts(np.frombuffer(contents[0], np.uint8), self.text)
        kinds = np.unique(parts[0]) if self.alphabet == "seen" else self.vocabulary()
        arrays = dict(zip(("train", "val", "test"), numbered(parts, kinds), strict=True))
        return {"vocabulary": kinds, "bytes": np.array(self.text.sizes), **arrays}

    def encode(self, text: bytes) -> np.ndarray:
        """The numbers (n,) of bytes."""
        return numbered([np.frombuffer(text, np.uint8)], self.vocabulary())[0]

    def decode(self, symbols: np.ndarray) -> bytes:
        """The bytes that numbers (n,) stand for."""
        kinds = self.vocabulary()
        return kinds[check_symbols(symbols, len(kinds))].tobytes()


class Letters(WindowedText):
    """A text, character by character: which comes next?  Scored in bits per character.

    Args:
        data_dir  path | None   with the file; None for the user's cache
        corpus    str | Corpus  "tiny-shakespeare": 65 characters, one byte each
        length    int           characters a window
        options   any           context, stride, part, download: as for `TextPart`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: our eq-language-bits, eq-language-windows.
    """

    metric = "bpc"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        corpus: str | Corpus = "tiny-shakespeare",
        length: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, corpus, length=length, facts={"kind": "characters"}, **options)

    def _encode(self, contents: tuple[bytes, ...]) -> dict[str, np.ndarray]:
        parts = cut_parts(code_points(contents[0].decode()), self.text)
        own = [parts[0], *(part[1:] for part in parts[1:])]
        sizes = [len(part.tobytes().decode("utf-32-le").encode()) for part in own]
        kinds = np.unique(parts[0])
        arrays = dict(zip(("train", "val", "test"), numbered(parts, kinds), strict=True))
        return {"vocabulary": kinds, "bytes": np.array(sizes), **arrays}

    def encode(self, text: str) -> np.ndarray:
        """The numbers (n,) of characters."""
        return numbered([code_points(text)], self.vocabulary())[0]

    def decode(self, symbols: np.ndarray) -> str:
        """The characters that numbers (n,) stand for."""
        kinds = self.vocabulary()
        return kinds[check_symbols(symbols, len(kinds))].tobytes().decode("utf-32-le")


def count_words(content: bytes) -> list[str]:
    """The vocabulary of a text in words: <eos>, <unk>, then the most frequent first."""
    seen: Counter[str] = Counter()
    for line in text_lines(content):
        seen.update(line)
    ranked = sorted(seen.items(), key=lambda each: (-each[1], each[0]))
    return ["<eos>", "<unk>", *(word for word, _ in ranked if word not in ("<eos>", "<unk>"))]


def text_lines(content: bytes) -> Iterable[list[str]]:
    """The words of each line of a file, one line after the other."""
    lines = content.split(b"\n")
    for line in lines[: len(lines) - (not lines[-1])]:
        yield line.decode().split()


def number_words(content: bytes, words: Sequence[str]) -> np.ndarray:
    """A text as places in a list of words: (1 + n,), <eos> in front and behind each line."""
    place = {word: i for i, word in enumerate(words)}
    rows = ([*(place.get(word, 1) for word in line), 0] for line in text_lines(content))
    every = itertools.chain([0], itertools.chain.from_iterable(rows))
    return np.fromiter(every, np.min_scalar_type(len(words) - 1))


class Words(WindowedText):
    """A text, word by word: which comes next?  Scored in perplexity, 2 to the bits per word.

    Args:
        data_dir  path | None   with the three files or their zip; None for the user's cache
        corpus    str | Corpus  "wikitext2" (33,278 kinds of words) or "wikitext103"
        length    int           words a window
        options   any           context, stride, part, download: as for `TextPart`
    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Merity et al. 2017; our eq-language-perplexity, eq-language-windows.
    """

    metric, files = "perplexity", 3

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        corpus: str | Corpus = "wikitext2",
        length: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, corpus, length=length, facts={"kind": "words"}, **options)

    def vocabulary(self) -> list[str]:
        """The words, in the order of their numbers."""
        return super().vocabulary().tobytes().decode().split("\n")

    def _encode(self, contents: tuple[bytes, ...]) -> dict[str, np.ndarray]:
        words = count_words(contents[0])
        arrays = {
            "vocabulary": np.frombuffer("\n".join(words).encode(), np.uint8),
            "bytes": np.array([len(content) for content in contents]),
        }
        for split, content in zip(("train", "val", "test"), contents, strict=True):
            arrays[split] = number_words(content, words)
        return arrays

    def encode(self, text: str) -> np.ndarray:
        """The numbers (n,) of the words of a text; <eos> behind each line."""
        return number_words(text.encode(), self.vocabulary())[1:]

    def decode(self, symbols: np.ndarray) -> str:
        """The text that numbers (n,) stand for; a line ends at each <eos>."""
        words, lines = self.vocabulary(), [[]]
        for i in check_symbols(symbols, len(words)).tolist():
            lines[-1].append(words[i]) if i else lines.append([])
        return "\n".join(" ".join(line) for line in lines)
