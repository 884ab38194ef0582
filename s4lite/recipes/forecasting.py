"""Recipes for forecasts: etth1, etth2, ettm1, weather, ecl.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace

from s4lite.recipes.catalogue import Figure, Recipe, Size

__all__ = ["ecl", "etth1", "etth2", "ettm1", "weather"]


_INFORMER = "Zhou et al. 2021 (Informer), as quoted by Gu et al. 2022 (S4)"


def _series(
    name: str, asks: str, horizons: dict[int, tuple[float, float]], informer: dict[int, tuple]
) -> Recipe:
    """One series, and what was printed for it: horizon -> (MSE, MAE)."""
    source = "state-spaces/s4, forecasting/s4-informer-etth.yaml and its like"
    notes = ("rate lowered once an epoch, not every fifth of one", "context 384 at every horizon")
    task = {"series": name, "horizon": min(horizons), "context": 384, "univariate": True}
    walk = {"dropout": 0.25, "schedule": "plateau", "patience": 2, "epochs": 10, "batch_size": 50}
    as_published = task | {"inputs": "s4", "multiple": 50}
    paper = Size(n_layers=2, weight_decay=0.0, source=source, notes=notes, **walk)
    small = replace(paper, task=task, workers=2, source="", notes=notes[1:])
    paper = replace(paper, task=as_published)
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.5}
    fast = {"epochs": 3, "batch_size": 50, "warmup": 40, "clip": 1.0, "bidirectional": True}
    alone = task | {"inputs": "values"}
    tiny = Size(task=alone, train=8_000, val=2_000, notes=notes[1:], **low, **fast)
    s4 = [Figure("s4", "S4", a, "Gu et al. 2022 (S4)", h, b) for h, (a, b) in horizons.items()]
    other = [Figure("", "Informer", a, _INFORMER, h, b) for h, (a, b) in informer.items()]
    sizes, figures = {"tiny": tiny, "small": small, "paper": paper}, (*s4, *other)
    return Recipe(name, asks, "data.forecasting:Forecasting", "mse", sizes, figures)


def etth1() -> Recipe:
    """Oil temperature of a transformer, hourly."""
    s4 = {24: (0.061, 0.191), 48: (0.079, 0.220), 168: (0.104, 0.258)}
    s4 |= {336: (0.080, 0.229), 720: (0.116, 0.271)}
    informer = {24: (0.098, 0.247), 720: (0.269, 0.435)}
    return _series("etth1", "oil temperature of a transformer, hourly", s4, informer)


def etth2() -> Recipe:
    """Another transformer."""
    s4 = {24: (0.095, 0.234), 48: (0.191, 0.346), 168: (0.167, 0.333)}
    s4 |= {336: (0.189, 0.361), 720: (0.187, 0.358)}
    informer = {24: (0.093, 0.240), 720: (0.277, 0.431)}
    return _series("etth2", "oil temperature of another transformer, hourly", s4, informer)


def ettm1() -> Recipe:
    """The first transformer, four times an hour."""
    s4 = {24: (0.024, 0.117), 48: (0.051, 0.174), 96: (0.086, 0.229)}
    s4 |= {288: (0.160, 0.327), 672: (0.292, 0.466)}
    informer = {672: (0.512, 0.644)}
    return _series("ettm1", "oil temperature of the first transformer, by quarters", s4, informer)


def weather() -> Recipe:
    """Wet bulb temperature, hourly."""
    s4 = {24: (0.125, 0.254), 48: (0.181, 0.305), 168: (0.198, 0.333)}
    s4 |= {336: (0.300, 0.417), 720: (0.245, 0.375)}
    return _series("weather", "wet bulb temperature, hourly", s4, {720: (0.359, 0.466)})


def ecl() -> Recipe:
    """Electricity of one client, hourly."""
    s4 = {48: (0.222, 0.350), 168: (0.331, 0.421), 336: (0.328, 0.422)}
    s4 |= {720: (0.428, 0.494), 960: (0.432, 0.497)}
    return _series("ecl", "electricity of one client, hourly", s4, {960: (0.582, 0.608)})
