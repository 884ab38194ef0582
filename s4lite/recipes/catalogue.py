"""Experiments as data: what a recipe is, and which there are.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Figure", "Network", "Recipe", "Size", "Walk", "choose", "names", "recipe"]


@dataclass(frozen=True)
class Network:
    """What a network is like.

    Args:
        d_model, n_layers, d_state  int    channels; blocks; numbers of state a channel
        n_ssm                       int    copies of the poles
        dt_min, dt_max              float  range of the clocks at the start
        bidirectional, prenorm      bool   as for `S4D` and `S4Block`
        pool                        str    "mean" or "last", where a sequence has one answer
        dropout                     float  share of channels dropped
    """

    d_model: int = 128
    n_layers: int = 4
    d_state: int = 64
    n_ssm: int = 1
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    bidirectional: bool = False
    prenorm: bool = True
    pool: str = "mean"
    dropout: float = 0.0


@dataclass(frozen=True)
class Walk:
    """How a network walks. The first eleven are `train.module.Settings`'.

    Args:
        lr, ssm_lr, clock_lr, weight_decay  float       rates, and decay
        schedule, warmup, floor             any         factor of all rates; warm-up in steps
        patience, shrink                    any         of a plateau
        clip, ema                           float|None  longest gradient; averaged weights
        epochs, batch_size, accumulate      int         sequences a batch; batches a step
        stop                                int|None    epochs without a better one; None: go on
        workers, precision, buckets         any         processes that load; floats; like lengths
        shares                              int         epochs that make up one pass
    """

    lr: float = 0.01
    ssm_lr: float = 0.001
    clock_lr: float | None = None
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: int = 0
    floor: float = 0.0
    patience: int = 10
    shrink: float = 0.2
    clip: float | None = None
    ema: float | None = None
    epochs: int = 10
    batch_size: int = 50
    accumulate: int = 1
    stop: int | None = None
    workers: int = 0
    precision: str = "32-true"
    buckets: bool = False
    shares: int = 1


@dataclass(frozen=True)
class Size(Network, Walk):
    """How large an experiment is made: network, walk, and what of the data is used.

    Args:
        train, val, test  int | None  sequences of each split; None: all
        task, layer       dict        options of the task; of S4's layer, beyond `Network`'s
        made_by           str         another task class, where the recipe's own is out of reach
        source            str         where these numbers were published; "": they are ours
        notes             tuple       in what this differs from the publication, or is a part
        (others)          any         as for `Network` and `Walk`
    Raises:
        ValueError: if a count is < 1.
    """

    train: int | None = None
    val: int | None = None
    test: int | None = None
    task: dict[str, Any] = field(default_factory=dict)
    layer: dict[str, Any] = field(default_factory=dict)
    made_by: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = ("d_model", "n_layers", "d_state", "epochs", "batch_size", "accumulate", "stop")
        for name in (*counts, "shares", "train", "val", "test"):
            if (n := getattr(self, name)) is not None and n < 1:
                raise ValueError(f"want {name} >= 1, got {n}")
        if self.workers < 0:
            raise ValueError(f"want workers >= 0, got {self.workers}")


@dataclass(frozen=True)
class Figure:
    """A result as somebody printed it.

    Args:
        model    str           which of our models it stands beside, the first that does; "": none
        printed  str           what it is called there
        score    float         in the recipe's metric (an accuracy as a share of one)
        source   str           where
        horizon  int | None    samples ahead, in forecasting
        mae      float | None  the second score of a forecast
    """

    model: str
    printed: str
    score: float
    source: str
    horizon: int | None = None
    mae: float | None = None


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    Args:
        name, asks  str    how it is called; what is asked, in a line
        task        str    module and class in s4lite, "data.pixels:SequentialMNIST"
        metric      str    see `train.objectives`
        sizes       dict   name -> Size
        figures     tuple  of Figure: what was published
    """

    name: str
    asks: str
    task: str
    metric: str
    sizes: dict[str, Size]
    figures: tuple[Figure, ...] = ()


_FAMILIES = {
    "pixels": ("smnist", "pmnist", "scifar"),
    "arena": (
        "lra-listops",
        "lra-text",
        "lra-retrieval",
        "lra-image",
        "lra-pathfinder",
        "lra-pathx",
    ),
    "speech": ("sc10", "sc35", "fsdd"),
    "forecasting": ("etth1", "etth2", "ettm1", "weather", "ecl"),
    "language": ("enwik8", "text8", "wikitext2", "tiny-shakespeare"),
}


def names() -> tuple[str, ...]:
    """The names of all recipes."""
    return tuple(name for family in _FAMILIES.values() for name in family)


def choose(what: str, name: str, known: Sequence[str]) -> str:
    """The name, if it is known; otherwise a ValueError that tells the nearest and all others.

    Args:
        what   str       of what it is the name
        name   str       as somebody wrote it
        known  sequence  of names
    """
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"want a {what} among {', '.join(known)}; got {name!r}{hint}")


def recipe(name: str) -> Recipe:
    """Look up an experiment by its name.

    Raises:
        ValueError: if there is none of that name.
    """
    choose("recipe", name, names())
    family = next(f for f, held in _FAMILIES.items() if name in held)
    made = getattr(importlib.import_module(f"s4lite.recipes.{family}"), name.replace("-", "_"))
    return made()
