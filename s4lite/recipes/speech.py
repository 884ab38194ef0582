"""Recipes for raw speech: sc10, sc35, fsdd.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace

from s4lite.recipes.catalogue import Figure, Recipe, Size

__all__ = ["fsdd", "sc10", "sc35"]


_SC = "Gu et al. 2022 (S4, updated), as quoted by Bourdois 2024"
_UNLIKE = (
    "LayerNorm where BatchNorm was published",
    "samples scaled by one mean and deviation, not by those of each moment",
)


def sc35() -> Recipe:
    """Thirty-five words."""
    wide = {"n_layers": 6, "n_ssm": 2, "bidirectional": True, "weight_decay": 0.05}
    source = "state-spaces/s4, sc/s4-sc.yaml"
    walk = {"warmup": 1000, "epochs": 40, "batch_size": 16, "workers": 4}
    paper = Size(**wide, **walk, source=source, notes=_UNLIKE)
    part = {"train": 20_000, "val": 4_000, "test": None, "batch_size": 64, "epochs": 5}
    small = replace(paper, n_layers=4, **part, warmup=300, clip=1.0, source="")
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 1e-3, "dt_max": 0.5}
    less = {"train": 1_500, "val": 300, "test": 500, "batch_size": 8, "epochs": 4, "warmup": 60}
    slower = ("8,000 samples a second, not 16,000",)
    tiny = Size(clip=1.0, **low, **less, task={"classes": 35, "sample_rate": 8000}, notes=slower)
    sizes = {"tiny": tiny, "small": replace(small, task={"classes": 35}), "paper": paper}
    figures = (
        Figure("s4", "S4-LegS", 0.9608, _SC),
        Figure("s4d", "S4D-Lin", 0.9625, "Gu et al. 2022 (S4D), as quoted by Hasani et al. 2023"),
    )
    asks = "which of 35 words, 16,000 samples"
    return Recipe("sc35", asks, "data.speech:SpeechCommands", "accuracy", sizes, figures)


def sc10() -> Recipe:
    """Ten of them, as the first S4 had it."""
    ten, first = {"classes": 10}, {"n_layers": 6, "dropout": 0.1, "weight_decay": 0.0}
    plateau = {"schedule": "plateau", "patience": 20, "epochs": 200, "batch_size": 20}
    as_first = {"layer": {"mixer": "linear"}, "task": ten | {"partition": "published"}}
    source = "state-spaces/s4 v1, s4-sc.yaml"
    notes = (*_UNLIKE, "clips parted by lot, but not the published lot")
    paper = Size(**first, **plateau, **as_first, workers=4, source=source, notes=notes)
    shorter = [sc35().sizes[name] for name in ("tiny", "small")]
    tiny, small = (replace(size, task=size.task | ten) for size in shorter)
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    figures = (Figure("s4", "S4", 0.9832, "Gu et al. 2022 (S4)"),)
    asks = "which of 10 words, 16,000 samples"
    return Recipe("sc10", asks, "data.speech:SpeechCommands", "accuracy", sizes, figures)


def fsdd() -> Recipe:
    """Spoken digits."""
    notes = ("no recipe for S4 was published; this one is ours",)
    walk = {"bidirectional": True, "dropout": 0.1, "clip": 1.0, "batch_size": 32}
    paper = Size(n_layers=6, epochs=40, warmup=400, workers=2, notes=notes, **walk)
    small = replace(paper, n_layers=4, epochs=20, notes=())
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 1e-3, "dt_max": 0.5}
    tiny = Size(clip=1.0, batch_size=8, epochs=4, warmup=100, buckets=True, **low)
    cpu = replace(tiny, d_model=64, n_layers=3, epochs=12, dropout=0.1)
    sizes = {"tiny": tiny, "cpu": cpu, "small": small, "paper": paper}
    asks = "which of ten spoken digits, 8,000 samples a second"
    return Recipe("fsdd", asks, "data.speech:FSDD", "accuracy", sizes)
