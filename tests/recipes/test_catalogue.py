"""Recipes: all there, all sizes, none changed for others, and what can be counted is right."""

import ast
import dataclasses
from pathlib import Path

import pytest

import s4lite
from s4lite.recipes.catalogue import Size, choose, names, recipe
from s4lite.train.module import Settings
from s4lite.train.objectives import METRICS

WANTED = {
    "pixels": ["smnist", "pmnist", "scifar"],
    "arena": ["lra-listops", "lra-text", "lra-retrieval", "lra-image", "lra-pathfinder"],
    "larger": ["lra-pathx", "sc10", "sc35", "fsdd", "enwik8", "wikitext2"],
    "series": ["etth1", "etth2", "ettm1", "weather", "ecl"],
}


def test_all_that_was_promised_is_there():
    assert {name for family in WANTED.values() for name in family} <= set(names())
    assert len(set(names())) == len(names())


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_whole(name):
    made = recipe(name)
    assert made.name == name and made.asks and made.metric in METRICS
    assert {"tiny", "small", "paper"} <= set(made.sizes) <= {"tiny", "cpu", "small", "paper"}
    for size in made.sizes.values():
        walk = {
            f.name: getattr(size, f.name)
            for f in dataclasses.fields(Settings)
            if f.name in vars(size)
        }
        assert Settings(**walk, total=size.warmup + 1).factor(size.warmup) == 1
        assert size.d_model % size.n_ssm == 0 and size.d_state % 2 == 0
        assert (
            size.source or any("ours" in n for n in size.notes) or size is not made.sizes["paper"]
        )


@pytest.mark.parametrize("name", names())
def test_figures_have_a_source_and_are_in_the_metric(name):
    made = recipe(name)
    for figure in made.figures:
        assert figure.source and figure.printed and 0 < figure.score < 1
        assert (figure.horizon is None) == (made.metric != "mse") == (figure.mae is None)


def test_one_direction_where_the_future_is_asked_for():
    made = [recipe(name) for name in names()]
    sizes = [s for r in made if r.metric in ("bpc", "perplexity") for s in r.sizes.values()]
    assert len(sizes) >= 9 and not any(size.bidirectional for size in sizes)


def test_a_recipe_is_made_anew_each_time():
    first = recipe("pmnist")
    first.sizes["tiny"].task["permute"] = "seeded"
    first.sizes.pop("paper")
    second = recipe("pmnist")
    assert second.sizes["tiny"].task == {"permute": "bit-reversal"} and "paper" in second.sizes
    with pytest.raises(dataclasses.FrozenInstanceError):
        second.sizes["tiny"].lr = 1.0


@pytest.mark.parametrize(
    ("name", "size", "want"),
    [
        (
            "scifar",
            "paper",
            {"d_model": 512, "n_layers": 6, "n_ssm": 2, "batch_size": 50, "warmup": 900},
        ),
        ("scifar", "paper", {"lr": 0.01, "ssm_lr": 0.001, "clock_lr": None, "weight_decay": 0.05}),
        ("sc35", "paper", {"lr": 0.01, "ssm_lr": 0.001, "clock_lr": None, "weight_decay": 0.05}),
        ("lra-pathfinder", "paper", {"clock_lr": None, "warmup": 2500, "epochs": 200}),
        ("lra-pathx", "paper", {"clock_lr": 5e-4, "ssm_lr": 5e-4, "dt_max": 0.1, "epochs": 50}),
        ("lra-image", "paper", {"clock_lr": 0.01, "warmup": 900, "epochs": 200, "batch_size": 50}),
        ("sc10", "paper", {"epochs": 200, "patience": 20, "batch_size": 20, "weight_decay": 0.0}),
        ("sc10", "paper", {"layer": {"mixer": "linear"}, "bidirectional": False, "dropout": 0.1}),
        ("ecl", "paper", {"layer": {"mixer": "linear"}, "prenorm": False, "batch_size": 50}),
        ("lra-listops", "paper", {"d_model": 128, "n_layers": 8, "n_ssm": 128, "epochs": 40}),
        ("lra-text", "paper", {"d_model": 256, "n_layers": 6, "batch_size": 16, "epochs": 32}),
        (
            "lra-retrieval",
            "paper",
            {"d_model": 256, "batch_size": 64, "warmup": 2500, "epochs": 20},
        ),
        ("lra-image", "paper", {"d_model": 512, "n_ssm": 2, "dropout": 0.1, "prenorm": False}),
        (
            "lra-pathfinder",
            "paper",
            {"lr": 0.004, "weight_decay": 0.03, "pool": "last", "batch_size": 64},
        ),
        ("lra-pathx", "paper", {"lr": 0.001, "dt_min": 1e-4, "warmup": 50_000, "batch_size": 16}),
        (
            "sc35",
            "paper",
            {"d_model": 128, "n_layers": 6, "n_ssm": 2, "batch_size": 16, "epochs": 40},
        ),
        ("etth1", "paper", {"d_model": 128, "n_layers": 2, "dropout": 0.25, "schedule": "plateau"}),
        ("etth1", "paper", {"epochs": 50, "shares": 5, "patience": 100, "weight_decay": 0.0}),
    ],
)
def test_published_numbers(name, size, want):
    found = recipe(name).sizes[size]
    assert {key: getattr(found, key) for key in want} == want


@pytest.mark.parametrize("name", names())
def test_only_what_was_published_has_a_source(name):
    sizes = recipe(name).sizes
    assert not any(size.source for key, size in sizes.items() if key != "paper")
    ours = any("this one is ours" in note for note in sizes["paper"].notes)
    assert bool(sizes["paper"].source) != ours


def test_the_published_forecasts_see_values_as_they_are():
    for name in ("etth1", "etth2", "ettm1", "weather", "ecl"):
        task = recipe(name).sizes["paper"].task
        assert (task["inputs"], task["level"], task["multiple"]) == (
            "s4-lines",
            False,
            50,
        )
        assert task["context"] == (384 if name == "ecl" else None)
        assert (
            len(recipe(name).figures) == 10 and task["horizon"] == recipe(name).figures[0].horizon
        )


def test_a_part_that_is_drawn_says_so():
    for name in ("lra-listops", "lra-pathfinder", "lra-pathx", "lra-retrieval"):
        for size in recipe(name).sizes.values():
            n = size.task.get("sizes", [0])[0]
            assert not n or any(f"{n:,}" in t or "stand-in" in t for t in size.notes)


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match=r"did you mean lra-pathfinder\?"):
        recipe("lra-pathfnder")
    with pytest.raises(ValueError, match=r"want a size among a, b; got 'zzz'$"):
        choose("size", "zzz", ("a", "b"))
    assert choose("size", "a", ("a", "b")) == "a"


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"train": 0}, {"d_model": -1}, {"workers": -1}])
def test_counts_are_counts(wrong):
    with pytest.raises(ValueError, match=f"want {next(iter(wrong))} >= "):
        Size(**wrong)


def test_the_catalogue_needs_nothing_but_the_standard_library():
    """It can be read where no extra is installed, and where a task's module is missing."""
    root = Path(s4lite.__file__).parent / "recipes"
    for name in ("catalogue", "pixels", "arena", "speech", "forecasting", "language"):
        tree = ast.parse((root / f"{name}.py").read_text())
        ours = {
            n.module
            for n in ast.walk(tree)
            if isinstance(n, ast.ImportFrom) and "s4lite" in n.module
        }
        assert ours <= {"s4lite.recipes.catalogue"}
