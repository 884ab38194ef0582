"""Recipes for text, symbol by symbol: enwik8, text8, wikitext2, tiny-shakespeare.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace
from typing import Any

from s4lite.recipes.catalogue import Recipe, Size

__all__ = ["enwik8", "text8", "tiny_shakespeare", "wikitext2"]


def _corpus(
    name: str,
    asks: str,
    task: str,
    metric: str,
    *,
    most: tuple[int, int, int] = (4_000_000, 50_000, 200_000),
    length: int = 256,
    **options: Any,
) -> Recipe:
    """One corpus, in windows; what its tiny size has of it, and otherwise than others."""
    notes = ("no recipe for S4 was published; this one is ours",)
    wide = {"d_model": 512, "n_layers": 8, "dropout": 0.1, "clip": 1.0, "n_ssm": 1}
    window = {"corpus": name, "length": 2048}
    paper = Size(**wide, epochs=10, batch_size=16, warmup=1000, lr=0.002, workers=4, notes=notes)
    paper = replace(paper, task=window)
    small = replace(paper, d_model=256, n_layers=6, epochs=1, batch_size=32, warmup=200, notes=())
    low = {"d_model": 64, "n_layers": 3, "d_state": 16, "dt_min": 5e-3, "dt_max": 0.5}
    walk = {"epochs": 2, "batch_size": 16, "warmup": 60, "clip": 1.0, "lr": 0.01}
    told = (f"at most the first {most[0]:,} symbols to train, {most[2]:,} to test",)
    less = {"length": length, "part": most}
    tiny = Size(task=window | less, notes=told, **(low | walk | options))
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    return Recipe(name, asks, task, metric, sizes)


def enwik8() -> Recipe:
    """A hundred million bytes of Wikipedia."""
    return _corpus("enwik8", "the next byte of Wikipedia", "data.text:Bytes", "bpc")


def text8() -> Recipe:
    """The same, cleaned to 27 letters."""
    return _corpus("text8", "the next of 27 letters of Wikipedia", "data.text:Bytes", "bpc")


def wikitext2() -> Recipe:
    """Two million words of Wikipedia."""
    asks = "the next word of Wikipedia"
    less = {"d_model": 32, "n_layers": 2, "epochs": 2, "batch_size": 8}
    less |= {"most": (250_000, 10_000, 20_000), "length": 128}
    return _corpus("wikitext2", asks, "data.text:Words", "perplexity", **less)


def tiny_shakespeare() -> Recipe:
    """A million letters of Shakespeare."""
    asks = "the next letter of Shakespeare"
    return _corpus("tiny-shakespeare", asks, "data.text:Letters", "bpc", epochs=8)
