"""Recipes of Long Range Arena: listops, text, retrieval, image, pathfinder, pathx.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace
from typing import Any

from s4lite.recipes.catalogue import Figure, Recipe, Size

__all__ = ["lra_image", "lra_listops", "lra_pathfinder", "lra_pathx", "lra_retrieval", "lra_text"]


_ARENA = "Gu et al. 2022 (S4)"
_ARENA_NEW = "Gu et al. 2022 (S4, updated), as quoted by Bourdois 2024"
_ARENA_S4D = "Gu et al. 2022 (S4D), as quoted by Hasani et al. 2023"
_ARENA_TAY = "Tay et al. 2021, as quoted by Bourdois 2024"
_NORM = "LayerNorm where BatchNorm was published"
_ANEW = ("drawn by our generator, after the published facts; not the published files",)


def _arena(*scores: float | None) -> tuple[Figure, ...]:
    """What was printed, in percent: Transformer, S4 (second, first version), S4D-Lin, S4D-Inv."""
    columns = (
        ("transformer", "Transformer", _ARENA_TAY),
        ("s4", "S4, second version", _ARENA_NEW),
        ("s4", "S4, first version", _ARENA),
        ("s4d", "S4D-Lin", _ARENA_S4D),
        ("s4d", "S4D-Inv", _ARENA_S4D),
    )
    both = zip(columns, scores, strict=True)
    return tuple(
        Figure(m, printed, round(score / 100, 4), source)
        for (m, printed, source), score in both
        if score is not None
    )


def _updated(config: str, *, norm: str = _NORM, **options: Any) -> Size:
    """What the second version's six settings have in common."""
    like_lengths = ("batches of like lengths, not of any",) * options.get("buckets", False)
    notes = (norm,) * bool(norm) + like_lengths + options.pop("notes", ())
    source = f"state-spaces/s4, lra/old/v3-s4-{config}.yaml"
    likes = {"bidirectional": True, "weight_decay": 0.05, "clock_lr": 0.01, "workers": 4}
    return Size(**{"n_layers": 6, "d_model": 256, **likes, **options}, source=source, notes=notes)


def lra_listops() -> Recipe:
    """Nested lists of digits."""
    rates = {"n_layers": 8, "d_model": 128, "n_ssm": 128, "prenorm": False, "warmup": 1000}
    paper = _updated("listops", **rates, epochs=40, batch_size=50, buckets=True, notes=_ANEW)
    small = replace(paper, n_layers=4, n_ssm=1, epochs=12, clip=1.0, clock_lr=None, source="")
    shape = {"max_depth": 4, "max_args": 5, "min_length": 5, "max_length": 128}
    easier = {"sizes": (40_000, 2_000, 2_000), **shape}
    low = {"d_model": 64, "n_layers": 3, "d_state": 16, "dt_min": 1e-2, "dt_max": 0.5}
    walk = {"bidirectional": True, "warmup": 200, "epochs": 6, "batch_size": 64, "buckets": True}
    notes = ("depth 4 and 5 to 128 tokens, not depth 10 and 500 to 2,000: an easier task",)
    notes += ("40,000 lists to train, not 96,000",)
    tiny = Size(clip=1.0, task=easier, notes=notes, **low, **walk)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = _arena(36.37, 59.60, 58.35, 60.52, 60.18)
    asks = "the value of a nested list, up to 2,000 tokens"
    return Recipe("lra-listops", asks, "data.listops:ListOps", "accuracy", sizes, figures)


def lra_text() -> Recipe:
    """Film reviews, letter by letter."""
    chosen = ("published scores were chosen on the test set; ours are not",)
    rates = {"n_ssm": 256, "warmup": 1000, "epochs": 32, "batch_size": 16, "buckets": True}
    paper = _updated("imdb", **rates, notes=chosen)
    smaller = {"n_layers": 4, "d_model": 128, "n_ssm": 1, "weight_decay": 0.01, "source": ""}
    small = replace(paper, **smaller, epochs=15, batch_size=50, clip=1.0, clock_lr=None)
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.5}
    part = {"train": 10_000, "val": 1_000, "test": 5_000, "epochs": 4, "warmup": 60}
    task, notes = {"length": 1024}, (*chosen, "the first 1,024 letters of each review, not 4,096")
    tiny = Size(clip=1.0, buckets=True, task=task, notes=notes, dropout=0.1, **low, **part)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = _arena(64.27, 86.82, 76.02, 86.97, 87.34)
    asks = "is a review kind, up to 4,096 letters"
    return Recipe("lra-text", asks, "data.documents:Text", "accuracy", sizes, figures)


def lra_retrieval() -> Recipe:
    """Two documents: does one cite the other?"""
    rates = {"n_ssm": 256, "warmup": 2500, "epochs": 20, "batch_size": 64}
    paper = _updated("aan", **rates)
    part = {"train": 20_000, "val": 4_000, "task": {"length": 2000}}
    cut = "20,000 of 147,086 pairs, and 2,000 letters of each document, not 4,000"
    smaller = {"n_layers": 4, "d_model": 128, "n_ssm": 1, "epochs": 5, "warmup": 150, "source": ""}
    small = replace(paper, **smaller, **part, clip=1.0, clock_lr=None, notes=(_NORM, cut))
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 5e-3, "dt_max": 0.5}
    stand_in = {"sizes": (8_000, 500, 1_000), "length": 128, "topics": 8, "every": 3}
    notes = ("a generated stand-in, two lines each: its results say nothing about Retrieval",)
    made_by = "data.retrieval:RetrievalStandIn"
    walk = {"epochs": 6, "batch_size": 32, "warmup": 60, "clip": 1.0}
    tiny = Size(task=stand_in, made_by=made_by, notes=notes, **walk, **low)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = _arena(57.46, 90.90, 87.09, 90.96, 91.09)
    asks = "does one of two papers cite the other, up to 4,000 letters each"
    return Recipe("lra-retrieval", asks, "data.retrieval:Retrieval", "accuracy", sizes, figures)


def lra_image() -> Recipe:
    """Photographs in grey, row by row."""
    wide = {"d_model": 512, "n_ssm": 2, "prenorm": False, "dropout": 0.1}
    paper = _updated("cifar", norm="", **wide, warmup=900, epochs=200)
    shorter = {"epochs": 20, "clock_lr": None, "clip": 1.0, "source": ""}
    small = replace(paper, d_model=128, n_layers=4, **shorter)
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.2}
    part = {"train": 10_000, "val": 2_000, "test": 5_000, "epochs": 4, "warmup": 60}
    sizes = {"tiny": Size(clip=1.0, **low, **part), "small": small, "paper": paper}
    figures = _arena(42.44, 88.65, 87.26, 87.93, 87.83)
    asks = "which of ten things, 1,024 pixels in grey"
    return Recipe("lra-image", asks, "data.pixels:LRAImage", "accuracy", sizes, figures)


def lra_pathfinder() -> Recipe:
    """Two discs: does a dashed line join them?"""
    rates = {"n_ssm": 256, "lr": 0.004, "clock_lr": None, "weight_decay": 0.03, "pool": "last"}
    walk = {"warmup": 2500, "epochs": 200, "batch_size": 64}
    paper = _updated("pathfinder", **rates, **walk, notes=_ANEW)
    smaller = {"d_model": 128, "n_layers": 4, "n_ssm": 1, "pool": "mean", "warmup": 600}
    small = replace(paper, **smaller, train=40_000, val=4_000, epochs=20, clip=1.0, source="")
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.2}
    walk = {"bidirectional": True, "lr": 0.004, "epochs": 3, "warmup": 60, "clip": 1.0}
    notes = ("8,000 pictures to train and 2,000 to test, not 160,000 and 20,000",)
    tiny = Size(task={"sizes": (8_000, 1_000, 2_000)}, notes=notes, **walk, **low)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = _arena(71.40, 94.20, 86.05, 93.96, 93.78)
    asks = "does a dashed line join two discs, 32 by 32 pixels"
    return Recipe("lra-pathfinder", asks, "data.pathfinder:Pathfinder", "accuracy", sizes, figures)


def lra_pathx() -> Recipe:
    """The same on 128 by 128 pixels."""
    rates = {"n_ssm": 256, "lr": 0.001, "clock_lr": 5e-4, "ssm_lr": 5e-4, "dt_min": 1e-4}
    walk = {"warmup": 50_000, "epochs": 50, "batch_size": 16, "task": {"size": 128}}
    paper = _updated("pathx", **rates, **walk, notes=_ANEW)
    smaller = {"d_model": 64, "n_layers": 4, "n_ssm": 1, "warmup": 200, "dt_max": 0.01}
    few = {"task": {"size": 128, "sizes": (10_000, 1_000, 2_000)}}  # drawing takes time, too
    cut = "10,000 pictures to train and 2,000 to test, not 160,000 and 20,000"
    few |= {"notes": (*paper.notes, cut), "source": ""}
    small = replace(paper, **smaller, **few, epochs=3, batch_size=32, clip=1.0)
    low = {"d_model": 16, "n_layers": 2, "d_state": 16, "dt_min": 5e-4, "dt_max": 0.1}
    walk = {"bidirectional": True, "lr": 0.004, "epochs": 2, "batch_size": 16, "clip": 1.0}
    notes = ("64 by 64 pixels, not 128 by 128: an easier task", "800 pictures, not 160,000")
    drawn = {"size": 64, "sizes": (800, 100, 200)}  # drawing is most of the time
    tiny = Size(task=drawn, notes=notes, warmup=20, **walk, **low)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = _arena(None, 96.35, 88.10, None, 92.80)
    asks = "does a dashed line join two discs, 128 by 128 pixels"
    return Recipe("lra-pathx", asks, "data.pathfinder:Pathfinder", "accuracy", sizes, figures)
