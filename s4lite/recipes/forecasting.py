"""Recipes for forecasts: etth1, etth2, ettm1, weather, ecl.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace

from s4lite.recipes.catalogue import Figure, Recipe, Size

__all__ = ["ecl", "etth1", "etth2", "ettm1", "weather"]


_PRINTED = "Gu et al. 2022 (S4), table 13"
_INFORMER = f"Zhou et al. 2021 (Informer), as quoted by {_PRINTED}"
_SHOWN = (
    "context as in Informer's scripts, clock as lines: what S4's author names for etth1 at 24; the "
    "configuration that was released has 384 and symbols",
)


def _series(name: str, asks: str, ahead: tuple[int, ...], **printed: tuple[float, ...]) -> Recipe:
    """One series, and what was printed for it: of each horizon MSE, MAE, MSE, MAE, ..."""
    source = "state-spaces/s4, forecasting/s4-informer-etth.yaml and its like; issue 113"
    same = ("context 384 at every horizon",)
    task = {"series": name, "horizon": ahead[0], "context": 384, "univariate": True}
    walk = {"dropout": 0.25, "schedule": "plateau", "patience": 2, "epochs": 10, "batch_size": 50}
    small = Size(n_layers=2, weight_decay=0.0, task=task, workers=2, notes=same, **walk)
    looks = {"epochs": 50, "shares": 5, "patience": 100}  # 10 passes; 20 without a better score
    as_first = {"layer": {"mixer": "linear"}, "prenorm": False, "source": source}
    notes = ("an epoch is a fifth of a pass: 10 passes, with 5 looks at validation in each",)
    notes += same if name == "ecl" else _SHOWN
    as_said = {"inputs": "s4-lines", "multiple": 50, "level": False}
    as_said |= {"context": 384 if name == "ecl" else None}
    paper = replace(small, workers=0, task=task | as_said, notes=notes, **looks, **as_first)
    low = {"d_model": 32, "n_layers": 2, "d_state": 16, "dt_min": 2e-3, "dt_max": 0.5}
    fast = {"epochs": 3, "batch_size": 50, "warmup": 40, "clip": 1.0, "bidirectional": True}
    alone = task | {"inputs": "values"}
    tiny = Size(task=alone, train=8_000, val=2_000, notes=same, **low, **fast)
    figures = _errors("s4", "S4", _PRINTED, ahead, printed["s4"])
    figures += _errors("", "Informer", _INFORMER, ahead, printed["informer"])
    sizes = {"tiny": tiny, "small": small, "paper": paper}
    return Recipe(name, asks, "data.forecasting:Forecasting", "mse", sizes, figures)


def _errors(
    model: str, printed: str, source: str, ahead: tuple[int, ...], scores: tuple[float, ...]
) -> tuple[Figure, ...]:
    """The figures of a row of scores."""
    both = zip(ahead, scores[::2], scores[1::2], strict=True)
    return tuple(Figure(model, printed, mse, source, horizon, mae) for horizon, mse, mae in both)


def etth1() -> Recipe:
    """Oil temperature of a transformer, hourly."""
    s4 = (0.061, 0.191, 0.079, 0.220, 0.104, 0.258, 0.080, 0.229, 0.116, 0.271)
    informer = (0.098, 0.247, 0.158, 0.319, 0.183, 0.346, 0.222, 0.387, 0.269, 0.435)
    asks = "oil temperature of a transformer, hourly"
    return _series("etth1", asks, (24, 48, 168, 336, 720), s4=s4, informer=informer)


def etth2() -> Recipe:
    """Another transformer."""
    s4 = (0.095, 0.234, 0.191, 0.346, 0.167, 0.333, 0.189, 0.361, 0.187, 0.358)
    informer = (0.093, 0.240, 0.155, 0.314, 0.232, 0.389, 0.263, 0.417, 0.277, 0.431)
    asks = "oil temperature of another transformer, hourly"
    return _series("etth2", asks, (24, 48, 168, 336, 720), s4=s4, informer=informer)


def ettm1() -> Recipe:
    """The first transformer, four times an hour."""
    s4 = (0.024, 0.117, 0.051, 0.174, 0.086, 0.229, 0.160, 0.327, 0.292, 0.466)
    informer = (0.030, 0.137, 0.069, 0.203, 0.194, 0.372, 0.401, 0.554, 0.512, 0.644)
    asks = "oil temperature of the first transformer, by quarters"
    return _series("ettm1", asks, (24, 48, 96, 288, 672), s4=s4, informer=informer)


def weather() -> Recipe:
    """Wet bulb temperature, hourly."""
    s4 = (0.125, 0.254, 0.181, 0.305, 0.198, 0.333, 0.300, 0.417, 0.245, 0.375)
    informer = (0.117, 0.251, 0.178, 0.318, 0.266, 0.398, 0.297, 0.416, 0.359, 0.466)
    asks = "wet bulb temperature, hourly"
    return _series("weather", asks, (24, 48, 168, 336, 720), s4=s4, informer=informer)


def ecl() -> Recipe:
    """Electricity of one client, hourly."""
    s4 = (0.222, 0.350, 0.331, 0.421, 0.328, 0.422, 0.428, 0.494, 0.432, 0.497)
    informer = (0.239, 0.359, 0.447, 0.503, 0.489, 0.528, 0.540, 0.571, 0.582, 0.608)
    asks = "electricity of one client, hourly"
    return _series("ecl", asks, (48, 168, 336, 720, 960), s4=s4, informer=informer)
