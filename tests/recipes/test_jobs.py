"""From names to jobs: every recipe at every size for every model, and what the ledger is told."""

import json
import shlex

import pytest
import torch

from s4lite.recipes.catalogue import names, recipe
from s4lite.recipes.jobs import beside, job, planned, run_name
from s4lite.recipes.models import layers
from s4lite.train.job import Job, facts_of

SHAPE = {"max_depth": 3, "max_args": 3, "min_length": 3, "max_length": 30, "workers": 1}
SMALL = {f"task.{k}": v for k, v in SHAPE.items()} | {"task.sizes": (200, 40, 40)}
SMALL |= {"d_model": 8, "n_layers": 1, "d_state": 4}


@pytest.mark.parametrize("name", names())
def test_every_recipe_constructs_at_every_size_for_every_model(name, tmp_path):
    for size in recipe(name).sizes:
        for model in layers():
            try:
                made = job(name, size, model, data_dir=tmp_path, download=False)
            except NotImplementedError as error:
                pytest.skip(str(error))
            assert isinstance(made, Job) and made.record["model"]["name"] == model
            assert made.name.startswith(name) and made.name.endswith(f"-{model}-{size}")
            json.dumps(made.record)
    assert not list(tmp_path.iterdir())  # nothing was read, nothing written


@pytest.mark.parametrize("model", layers())
def test_a_job_builds_and_its_batches_fit(model, tmp_path):
    made = job(
        "lra-listops",
        "tiny",
        model,
        overrides={k: v for k, v in SMALL.items() if model[0] == "s" or k != "d_state"},
        data_dir=tmp_path,
    )
    splits, net = made.task.splits(), made.build()
    batch = made.task.collate([splits.train[i] for i in range(3)])
    assert net(batch.u, lengths=batch.lengths).shape == (3, 10)
    assert facts_of(made)["task"]["d_input"] == 18


def test_same_seed_same_network(tmp_path):
    made = job("lra-listops", overrides=SMALL, data_dir=tmp_path)
    nets = []
    for _ in range(2):
        torch.manual_seed(made.seed)
        nets.append(made.build())
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in nets), strict=True))


def test_what_the_ledger_is_told(tmp_path):
    made = job("smnist", "tiny", "s4", seed=2, overrides={"lr": ".004"}, data_dir=tmp_path)
    record = made.record
    assert made.name == "smnist-s4-tiny-lr.004-seed2" and made.learner["lr"] == 0.004
    assert made.seed == 2 and job("smnist", data_dir=tmp_path).name == "smnist-s4d-tiny"
    assert (record["recipe"], record["size"], record["overrides"]) == (
        "smnist",
        "tiny",
        {"lr": ".004"},
    )
    assert record["published"]["value"] == 0.9963 and "table 12" in record["published"]["source"]
    assert any("12,000 for train" in note for note in record["notes"])
    assert any("size tiny is a recipe of ours" in note for note in record["notes"])
    assert record["notes"][-1].endswith("lr=.004")
    words = shlex.split(record["command"])
    assert words[:3] == ["s4lite", "train", "smnist"] and "lr=.004" in words and words[-1] == "2"
    assert str(tmp_path) not in json.dumps(record)


def test_options_of_the_layer_go_to_layers_that_know_them(tmp_path):
    heads = {}
    for model in ("s4", "transformer"):
        net = job("etth1", "paper", model, data_dir=tmp_path).build()
        heads[model] = net.stack.blocks[0].layer.head[2].weight.shape[0]
    assert heads == {"s4": 128, "transformer": 256}  # a plain map as published; a gate
    other = job("etth1", "paper", "s4", overrides={"mixer": "glu"}, data_dir=tmp_path)
    assert other.record["model"]["mixer"] == "glu"


def test_stand_ins_say_so():
    made = job("lra-retrieval", data_dir="nowhere")
    assert "stand-in" in made.name and any("stand-in" in note for note in made.record["notes"])
    assert "stand-in" not in job("lra-retrieval", "small", data_dir="nowhere").name


def test_figures_stand_beside_their_own_horizon_and_model():
    made = recipe("etth1")
    assert beside(made, "s4", 720)["value"] == 0.116 and beside(made, "s4", 24)["mae"] == 0.191
    assert [f["printed"] for f in beside(made, "lstm", 720)["all"]] == ["S4", "Informer"]
    assert beside(made, "s4", 100) == {} and "value" not in beside(made, "s4d", 24)
    assert beside(recipe("lra-image"), "s4")["printed"] == "S4, second version"
    assert beside(recipe("lra-image"), "s4d")["printed"] == "S4D-Lin"
    assert beside(recipe("fsdd"), "s4d") == {}


def test_baselines_walk_slower_unless_told():
    rate = {m: planned("scifar", "tiny", m)[1].lr for m in layers()}
    assert rate["s4"] == rate["s4d"] == 0.01 and max(rate[m] for m in ("lstm", "tcn")) == 0.002
    assert planned("scifar", "tiny", "transformer", {"lr": 0.01})[1].lr == 0.01
    assert any(
        "layer is lstm" in n for n in job("scifar", "paper", "lstm", data_dir="x").record["notes"]
    )


def test_names_are_for_files():
    made = recipe("smnist")
    name = run_name(made, "tiny", "s4d", {"task.sizes": "(8, 9)", "lr": 1e-3})
    assert name == "smnist-s4d-tiny-lr0.001-sizes_8_9_"
    long = {run_name(made, "tiny", "s4d", {"x": 200 * "y" + tail}) for tail in "ab"}
    assert len(long) == 2 and all(len(name) == 100 for name in long)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("smnst",), "did you mean smnist"),
        (("smnist", "tinny"), "did you mean tiny"),
        (("smnist", "tiny", "s5"), "want a model among"),
    ],
)
def test_unknown_names(words, says):
    with pytest.raises(ValueError, match=says):
        job(*words)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": "-1"}, "lr"),
        ({"schedule": "linear"}, "want schedule"),
        ({"schedule": "plateau"}, "no warmup with plateau"),
        ({"clip": "0"}, "want clip"),
        ({"batch_size": "0"}, "want batch_size"),
    ],
)
def test_settings_are_refused_before_anything_runs(change, says):
    with pytest.raises(ValueError, match=says):
        job("smnist", overrides=change, data_dir="nowhere")
