"""Recipes for pictures read pixel by pixel: smnist, pmnist, scifar.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace
from typing import Any

from s4lite.recipes.catalogue import Figure, Recipe, Size

__all__ = ["pmnist", "scifar", "smnist"]


_S4 = "Gu et al. 2022 (S4)"
_S4_CODE = "state-spaces/s4"
_S4D = "Gu et al. 2022 (S4D), as quoted by Hasani et al. 2023"


def _digits(name: str, asks: str, task: dict[str, Any], figures: tuple[Figure, ...]) -> Recipe:
    """MNIST in one order or another."""
    whole = {"bidirectional": True, "prenorm": False, "dropout": 0.1, "clip": 1.0, "task": task}
    small = Size(batch_size=64, epochs=10, warmup=843, workers=2, **whole)
    paper = replace(small, epochs=20, notes=("no recipe was published; this one is ours",))
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.2}
    part = {"train": 12_000, "val": 2_000, "epochs": 5, "warmup": 60}
    tiny = Size(clip=1.0, task=task, **low, **part)
    cpu = replace(tiny, d_model=40, n_layers=3, train=None, val=None, epochs=10, warmup=500)
    sizes = {"tiny": tiny, "cpu": cpu, "small": small, "paper": paper}
    return Recipe(name, asks, "data.pixels:SequentialMNIST", "accuracy", sizes, figures)


def smnist() -> Recipe:
    """Digits, row by row."""
    figures = (Figure("s4", "S4", 0.9963, f"{_S4}, table 12"),)
    return _digits("smnist", "which digit, 784 pixels row by row", {}, figures)


def pmnist() -> Recipe:
    """Digits, in bit-reversed order."""
    figures = (Figure("s4", "S4", 0.9870, f"{_S4}, table 12"),)
    order = {"permute": "bit-reversal"}
    return _digits("pmnist", "which digit, 784 pixels in bit-reversed order", order, figures)


def scifar() -> Recipe:
    """Photographs, in colour, row by row."""
    wide = {"d_model": 512, "n_layers": 6, "n_ssm": 2, "bidirectional": True, "prenorm": False}
    walk = {"dropout": 0.1, "weight_decay": 0.05, "warmup": 900, "epochs": 200}
    paper = Size(**wide, **walk, workers=4, source=f"{_S4_CODE}, cifar/s4-cifar.yaml")
    shorter = {"epochs": 20, "clock_lr": 0.01, "clip": 1.0, "source": ""}
    small = replace(paper, d_model=128, n_layers=4, **shorter)
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.2}
    part = {"train": 10_000, "val": 2_000, "test": 5_000, "epochs": 4, "warmup": 60}
    figures = (
        Figure("s4", "S4, second version", 0.9180, "Hasani et al. 2023"),
        Figure("s4", "S4, first version", 0.9113, f"{_S4}, table 12"),
        Figure("s4d", "S4D-Lin", 0.9042, _S4D),
        Figure("s4d", "S4D-Inv", 0.9069, _S4D),
    )
    sizes = {"tiny": Size(clip=1.0, **low, **part), "small": small, "paper": paper}
    asks = "which of ten things, 1,024 pixels in colour"
    return Recipe("scifar", asks, "data.pixels:SequentialCIFAR", "accuracy", sizes, figures)
