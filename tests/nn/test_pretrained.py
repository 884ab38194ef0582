"""Models saved with how they were made, and made again to the last bit."""

import contextlib
import functools
import inspect
import json
import os
import subprocess
import sys

import pytest
import torch

from s4lite import S4, S4D, SequenceModel
from s4lite.nn.baselines import LSTM
from s4lite.nn.dplr import initial_system
from s4lite.nn.folders import BadFolder, Folder
from s4lite.nn.pairs import PairModel
from s4lite.nn.pretrained import Pretrained, from_plain, to_plain

MODELS = {
    "plain": lambda: SequenceModel(3, 2, 8, 2),
    "all by name": lambda: SequenceModel(d_input=3, d_output=2, d_model=8, n_layers=1),
    "tokens": lambda: SequenceModel(5, 4, 8, 1, embedding=True, pool=None),
    "s4": lambda: SequenceModel(3, 2, 8, 1, layer=S4, d_state=8, dropout=0.3, prenorm=False),
    "lstm": lambda: SequenceModel(3, 2, 8, 1, layer=LSTM),
    "double": lambda: SequenceModel(3, 2, 8, 1, dtype=torch.float64, device="cpu", pool="last"),
    "made double": lambda: SequenceModel(3, 2, 8, 1, layer=S4D, init="legs").double(),
    "two ways": lambda: SequenceModel(3, 2, 8, 1, bidirectional=True),
    "pairs": lambda: PairModel(5, 2, 8, 1, embedding=True, layer=S4, dropout=0.1),
    "pairs of numbers": lambda: PairModel(3, 2, 8, 2, pool="last", dtype=torch.float64),
    "poles": lambda: SequenceModel(3, 2, 8, 1, d_state=8, init=POLES),
    "a system": lambda: SequenceModel(3, 2, 8, 1, layer=S4, d_state=8, init=SYSTEM),
    "made half": lambda: SequenceModel(3, 2, 8, 1, layer=S4).bfloat16(),
}
POLES = torch.complex(-torch.arange(1.0, 5), torch.arange(4.0) / 3)
SYSTEM = initial_system("legt", 8)
OPTIONS = {
    "d_state": [2, 6], "n_ssm": [2], "clock": ["softplus"], "dt_min": [1e-4], "dt_max": [0.3],
    "bidirectional": [True], "activation": [None, "relu", "silu"], "mixer": [None, "linear"],
    "dropout": [0.5], "backend": ["torch"], "prenorm": [False], "pool": ["last", None],
}  # fmt: skip
OWN = {
    S4: {"init": ["legs", "legt", "lagt", "fout"], "min_decay": [1e-2]},
    S4D: {"init": ["inv", "legs", "lin", "random", "real"], "disc": ["bilinear"]},
}
CASES = [
    (layer, name, value)
    for layer, own in OWN.items()
    for name, values in (OPTIONS | own).items()
    for value in values
]


def test_no_option_of_a_layer_is_forgotten_here():
    for layer, own in OWN.items():
        known = OPTIONS.keys() | own.keys() | {"d_model", "device", "dtype"}
        assert inspect.signature(layer).parameters.keys() <= known


@pytest.mark.parametrize(("layer", "name", "value"), CASES)
def test_every_option_comes_back(tmp_path, layer, name, value):
    first = SequenceModel(3, 2, 4, 1, layer=layer, **{"d_state": 4, name: value})
    first.save_pretrained(tmp_path / "it")
    second = SequenceModel.from_pretrained(tmp_path / "it")
    assert second.arguments == first.arguments and second.arguments[name] == value
    assert torch.equal(output(first), output(second))


def output(model):
    gen = torch.Generator().manual_seed(1)
    if model.arguments["embedding"]:
        return model.eval()(torch.randint(5, (2, 9), generator=gen))
    return model.eval()(
        torch.randn(2, 9, 3, generator=gen, dtype=torch.float64).to(next(model.parameters()))
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_to_the_last_bit(tmp_path, name):
    torch.manual_seed(0)
    first = MODELS[name]()
    first.save_pretrained(tmp_path / "it")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    second = type(first).from_pretrained(tmp_path / "it")
    assert not second.training and torch.equal(torch.get_rng_state(), state)
    mine, other = first.state_dict(), second.state_dict()
    assert mine.keys() == other.keys()
    assert all(mine[k].dtype == other[k].dtype and torch.equal(mine[k], other[k]) for k in mine)
    assert torch.equal(output(first), output(second))
    assert all(p.requires_grad for p in second.parameters())
    assert {p.name for p in (tmp_path / "it").iterdir()} == {"config.json", "model.safetensors"}
    second.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_bytes() == (
        tmp_path / "it/config.json"
    ).read_bytes()


def test_it_can_be_trained_on(tmp_path):
    SequenceModel(3, 2, 8, 1, dropout=0.1).save_pretrained(tmp_path / "it")
    model = SequenceModel.from_pretrained(tmp_path / "it").train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.randn(2, 9, 3)).square().sum().backward(), optimizer.step()
    model.save_pretrained(tmp_path / "it")
    again = SequenceModel.from_pretrained(tmp_path / "it")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_shards(tmp_path):
    model = SequenceModel(3, 2, 32, 2)
    model.save_pretrained(tmp_path / "it", shard_mib=0.01)
    sizes = [p.stat().st_size for p in (tmp_path / "it").glob("*.safetensors")]
    assert len(sizes) > 2 and max(sizes) <= 0.01 * 2**20
    again = SequenceModel.from_pretrained(tmp_path / "it")
    assert torch.equal(output(model), output(again))


def test_on_a_device(tmp_path):
    SequenceModel(3, 2, 8, 1).save_pretrained(tmp_path / "it")
    assert SequenceModel.from_pretrained(tmp_path / "it", device="cpu").decoder.map.weight.is_cpu
    made = SequenceModel.from_pretrained(tmp_path / "it", device="meta")
    assert all(p.is_meta for p in made.parameters())


def test_a_full_disk_leaves_the_model_before(tmp_path, monkeypatch):
    first = SequenceModel(3, 2, 8, 1)
    first.save_pretrained(tmp_path / "it")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="what stood there stands"):
        SequenceModel(3, 2, 8, 1).save_pretrained(tmp_path / "it")
    monkeypatch.undo()
    assert torch.equal(output(first), output(SequenceModel.from_pretrained(tmp_path / "it")))
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize("layer", [functools.partial(S4D, d_state=8), lambda *a, **o: S4D(*a, **o)])
def test_what_no_file_can_hold_is_refused_before_anything_is_written(tmp_path, layer):
    model = SequenceModel(3, 2, 8, 1, layer=layer)
    with pytest.raises(TypeError, match="want layer as a number, a text or a class of s4lite's"):
        model.save_pretrained(tmp_path / "it")
    assert not os.listdir(tmp_path)


class Other(Pretrained):
    """Another module that can be saved."""

    def __init__(self, n=3):
        super().__init__()
        self.arguments, self.map = {"n": n}, torch.nn.Linear(n, 1)


def test_another_class_can_be_one_and_is_not_taken_for_a_model(tmp_path):
    Other(4).save_pretrained(tmp_path / "it")
    assert Other.from_pretrained(tmp_path / "it").map.weight.shape == (1, 4)
    with pytest.raises(BadFolder, match="want a SequenceModel, got a Other"):
        SequenceModel.from_pretrained(tmp_path / "it")


def edit(path, change):
    about = json.loads((path / "config.json").read_text())
    change(about["facts"])
    about.pop("sha256")  # as somebody does who means it
    (path / "config.json").write_text(json.dumps(about))


BAD = {
    "argument": (lambda f: f["arguments"].update(d_modell=3), "d_modell"),
    "missing": (lambda f: f["arguments"].pop("d_input"), "d_input"),
    "shape": (lambda f: f["arguments"].update(d_model=6), "nothing was loaded"),
    "value": (lambda f: f["arguments"].update(pool="max"), "pool"),
    "class": (lambda f: f["arguments"].update(layer={"class": "os:system"}), "a class of s4lite"),
    "no class": (lambda f: f["arguments"].update(layer={"class": "s4lite.nn.layer:S5"}), "S5"),
    "no module": (lambda f: f["arguments"].update(layer={"class": "s4lite.x:S4"}), "s4lite.x"),
    "no arguments": (lambda f: f.pop("arguments"), "arguments"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_config(tmp_path, name):
    SequenceModel(3, 2, 8, 1).save_pretrained(path := tmp_path / "it")
    change, said = BAD[name]
    edit(path, change)
    with pytest.raises(BadFolder, match=said) as caught:
        SequenceModel.from_pretrained(path)
    assert "want what makes a SequenceModel" in str(caught.value)


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="want a folder"):
        SequenceModel.from_pretrained(tmp_path / "none")
    with pytest.raises(BadFolder, match=r"want a s4lite-model with its config\.json, got nothing"):
        SequenceModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadFolder, match="got something else"):
        SequenceModel.from_pretrained(tmp_path)
    SequenceModel(3, 2, 8, 1).save_pretrained(path := tmp_path / "it")
    SequenceModel(3, 2, 8, 1).save_pretrained(other := tmp_path / "other")
    file = path / "model.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:100], b"", (other / "model.safetensors").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(BadFolder, match=r"want model\.safetensors"):
            SequenceModel.from_pretrained(path)


@pytest.mark.parametrize(
    "value", [1, 2.5, True, None, "x", [1, [2]], {"a": {"b": 1}}, {}, torch.float64, S4D, [S4]]
)
def test_plain_and_back(value):
    plain = json.loads(json.dumps(to_plain(value)))
    assert from_plain(plain) == value


def test_tuples_come_back_as_tuples():
    assert from_plain(json.loads(json.dumps(to_plain((1, (2, [3])))))) == (1, (2, [3]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex128, torch.int64])
def test_tensors_come_back_with_the_same_bits(dtype):
    x = torch.randn(2, 0, 3) if dtype == torch.int64 else torch.randn(2, 3, dtype=torch.complex128)
    x = (x if dtype.is_complex else x.real if x.is_complex() else x).to(dtype)
    y = from_plain(json.loads(json.dumps(to_plain(x))))
    assert y.dtype == x.dtype and y.shape == x.shape and torch.equal(x, y)


@pytest.mark.parametrize(
    "plain",
    [
        {"a": 1, "b": 2},
        {"dtype": "nn"},
        {"class": 3},
        {"x": 1},
        {"class": "torch.nn:Linear"},
        {"class": "s4lite.nn.folders:BadFolder"},
        {"class": "s4lite.__main__:main"},
        {"tensor": 3},
        {"tensor": [{"dtype": "float32"}, [2], [1.0]]},
        {"tuple": 3},
        {"dict": []},
        {},
    ],
)
def test_bad_plain(plain):
    with pytest.raises(ValueError, match="want an argument, a dtype or a class of s4lite"):
        from_plain(plain)


def test_safetensors_is_imported_only_when_it_is_used():
    code = "import sys, s4lite; print('safetensors' in sys.modules, s4lite.SequenceModel.__mro__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("False") and "Pretrained" in done.stdout, done.stderr


def test_copies_keep_their_arguments(tmp_path):
    import copy
    import pickle

    model = SequenceModel(3, 2, 8, 1, d_state=8)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.save_pretrained(tmp_path / "it")
        assert torch.equal(output(SequenceModel.from_pretrained(tmp_path / "it")), output(model))
    assert Folder(tmp_path / "it", "s4lite-model", "config.json").facts["class"] == "SequenceModel"


def test_the_folder_of_home_and_links(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.chdir(tmp_path)
    model = SequenceModel(3, 2, 8, 1)
    model.save_pretrained("~/it")
    assert os.listdir(tmp_path) == ["it"]
    os.symlink(tmp_path / "it", tmp_path / "link")
    SequenceModel(3, 2, 8, 1).save_pretrained("link")  # where it leads, something new stands
    again = SequenceModel.from_pretrained("~/it")
    assert (tmp_path / "link").is_symlink() and not torch.equal(output(again), output(model))
    (tmp_path / "here").mkdir(), monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match="got the folder we are in"):
        model.save_pretrained(".")
    model.save_pretrained("../ünï cödé")
    assert torch.equal(output(SequenceModel.from_pretrained("../ünï cödé")), output(model))


def test_what_could_not_be_loaded_again_is_not_written(tmp_path):
    model = SequenceModel(3, 2, 8, 1)
    model.save_pretrained(tmp_path / "it")
    with torch.no_grad():
        model.decoder.map.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"loaded again; .*decoder\.map\.weight: want finite"):
        model.save_pretrained(tmp_path / "it")
    assert SequenceModel.from_pretrained(tmp_path / "it")


class Tied(Pretrained):
    """A module of which one tensor has two names."""

    def __init__(self):
        super().__init__()
        self.arguments, self.a, self.b = {}, torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_what_is_shared_stays_shared(tmp_path):
    Tied().double().save_pretrained(tmp_path / "it")
    again = Tied.from_pretrained(tmp_path / "it")
    assert again.a.weight is again.b.weight and again.a.weight.dtype == torch.float64


KINDS = [None, 3, "x", [], {}, -1, 1.5, True, ["a"], {"a": 1}]


def places(tree, at=()):
    yield at
    for key in tree if isinstance(tree, dict) else ():
        yield from places(tree[key], (*at, key))


@pytest.mark.parametrize("sealed", [True, False])
def test_whatever_stands_in_the_index_it_is_the_model_or_refused(tmp_path, sealed):
    SequenceModel(3, 2, 2, 1, d_state=2).save_pretrained(path := tmp_path / "it")
    text = (path / "config.json").read_text()
    for at in places(json.loads(text)):
        for value in KINDS:
            about = {"": json.loads(text)}
            held = about
            for key in ("", *at)[:-1]:
                held = held[key]
            held[("", *at)[-1]] = value
            if not sealed and isinstance(about[""], dict):
                about[""].pop("sha256", None)
            (path / "config.json").write_text(json.dumps(about[""]))
            with contextlib.suppress(BadFolder):
                SequenceModel.from_pretrained(path)
                assert not sealed or about[""] == json.loads(text) or at == ("sha256",)


def test_a_bit_of_the_index_is_missed(tmp_path):
    SequenceModel(3, 2, 8, 1, dropout=0.1).save_pretrained(path := tmp_path / "it")
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"dropout": 0.1', '"dropout": 0.3'))
    with pytest.raises(BadFolder, match="want an index as it was written, got one that was"):
        SequenceModel.from_pretrained(path)
