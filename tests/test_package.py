"""What someone meets who only installs and imports the package."""

import importlib
import inspect
import os
import pkgutil
import shutil
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import pytest

import s4lite

ROOT = Path(__file__).parent.parent
ENV = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def python(code, cwd, **env):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=ENV | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules():
    names = [m.name for m in pkgutil.walk_packages(s4lite.__path__, "s4lite.")]
    return [importlib.import_module(name) for name in names]


def public():
    names = [(module, name) for module in modules() for name in getattr(module, "__all__", ())]
    return [pytest.param(getattr(m, name), id=f"{m.__name__}.{name}") for m, name in names]


def test_the_names_that_the_readme_promises(tmp_path):
    assert python("from s4lite import S4D, SequenceModel; print(S4D.__name__)", tmp_path) == "S4D\n"
    assert all(hasattr(s4lite, name) for name in s4lite.__all__)


def test_import_brings_torch_and_numpy_and_nothing_else(tmp_path):
    count = "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    torch_alone = set(python(f"import torch, numpy; {count}", tmp_path).split())
    ours = set(python(f"import s4lite; {count}", tmp_path).split())
    extra = {m for m in ours - torch_alone if m not in sys.stdlib_module_names}
    assert extra == {"s4lite"}


def test_import_is_light(tmp_path):
    """Less than 0.3 s of a core on top of torch: the best of five, since machines are noisy."""
    clock = "time.process_time()"
    code = f"import torch, time; t = {clock}; import s4lite; print({clock} - t)"
    assert min(float(python(code, tmp_path)) for _ in range(5)) < 0.3


@pytest.mark.parametrize("missing", ["lightning", "safetensors"])
def test_without_its_extra_train_says_what_to_install(tmp_path, missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
try:
    import s4lite.train.schedules
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    said = python(code, tmp_path)
    assert said.startswith(missing) and 'pip install "s4lite[train]"' in said


@pytest.mark.parametrize("thing", public())
def test_public_names_are_documented_and_typed(thing):
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return
    assert inspect.getdoc(thing), "no docstring"
    functions = [thing]
    if inspect.isclass(thing):
        functions = [f for n, f in vars(thing).items() if inspect.isfunction(f) and n[:1] != "_"]
    for f in functions:
        hints = typing.get_type_hints(f)
        missing = [p for p in inspect.signature(f).parameters if p not in hints and p != "self"]
        assert not missing and "return" in hints, f"{f.__qualname__}: no type for {missing}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what it is built from."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "s4lite", source / "s4lite", ignore=shutil.ignore_patterns("*.pyc"))
    python(f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})", source)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_package_and_only_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    held = {n for n in names if ".dist-info/" not in n}
    want = {str(p.relative_to(ROOT)) for p in (ROOT / "s4lite").rglob("*.py")}
    assert held == want | {"s4lite/py.typed"}
    assert max(each.file_size for each in zipfile.ZipFile(wheel).infolist()) < 20_000
    assert wheel.stat().st_size < 400_000


@pytest.mark.slow
def test_wheel_asks_for_torch_and_numpy_only(wheel):
    archive = zipfile.ZipFile(wheel)
    name = next(n for n in archive.namelist() if n.endswith("/METADATA"))
    needs = [line for line in archive.read(name).decode().splitlines() if "Requires-Dist" in line]
    plain = sorted(line.split()[1].split(">")[0] for line in needs if "extra ==" not in line)
    assert plain == ["numpy", "torch"]
    extras = {line.split("extra == ")[1].strip("\"'") for line in needs if "extra ==" in line}
    assert extras == {"baselines", "train", "triton", "book", "test"}


@pytest.mark.slow
def test_wheel_works_from_an_empty_folder(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import torch, s4lite; from s4lite import S4D; "
        "print(s4lite.__file__, tuple(S4D(8)(torch.randn(2, 30, 8)).shape))"
    )
    where, shape = python(code, empty, PYTHONPATH=str(site)).split(" ", 1)
    assert Path(where).is_relative_to(site) and shape == "(2, 30, 8)\n"
