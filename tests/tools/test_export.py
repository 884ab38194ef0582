"""The exporter: every promise that its docstring makes, on small books made here."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from export import ExportError, exports, main

V4 = nbformat.v4


class Book:
    """A folder of chapters and a package `s4lite`, in an empty folder."""

    def __init__(self, root: Path):
        self.chapters, self.package = root / "chapters", root / "s4lite"
        self.chapters.mkdir()
        self.package.mkdir()

    def chapter(self, name: str, *cells: str) -> None:
        """Write a notebook; a cell that starts with a heading or `text:` is markdown."""
        notebook = V4.new_notebook()
        for source in map(textwrap.dedent, cells):
            markdown = source.startswith(("# ", "## ", "text:")) and "#|" not in source
            new = V4.new_markdown_cell if markdown else V4.new_code_cell
            notebook.cells.append(new(source.removeprefix("text:").strip("\n")))
        nbformat.write(notebook, self.chapters / f"{name}.ipynb")

    def run(self, *options: str) -> int:
        """Run the exporter as from the command line."""
        where = ["--chapters", str(self.chapters), "--package", str(self.package)]
        return main([*where, *options])

    def export(self, module: str = "ops.conv") -> str:
        """Export, which must succeed, and return one module's source."""
        assert self.run() == 0
        return self.source(module)

    def source(self, module: str) -> str:
        return (self.package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        """Everything in the package."""
        return {
            path.relative_to(self.package).as_posix(): path.read_bytes()
            for path in self.package.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


@pytest.fixture
def refused(book: Book, capsys: pytest.CaptureFixture[str]):
    """Check that the book is refused, with these words in the message, and nothing written."""

    def check(*words: str) -> None:
        before = book.files()
        assert book.run() == 1
        message = capsys.readouterr().err
        assert message.startswith("export refused: ")
        for word in words:
            assert word in message
        assert book.files() == before

    return check


TITLE = "# Three views"
HEAD = "#| default_exp ops.conv"


def dedent(source: str) -> str:
    return textwrap.dedent(source).lstrip("\n")


# ---------------------------------------------------------------- the module as a whole


def test_a_module_reads_as_if_written_by_hand(book):
    book.chapter("03_discretization", "# D", "#| export ops.discretize\ndef zoh(A): return A")
    book.chapter(
        "04_three_views",
        TITLE,
        """
        import math
        import sympy
        import torch
        from torch import Tensor, nn
        from s4lite.ops.discretize import zoh
        """,
        '''
        #| default_exp ops.conv
        """Causal convolution."""
        ''',
        """
        #| export
        def tail(K: Tensor) -> Tensor:
            return K[..., math.floor(3.5):]
        """,
        "tail(torch.ones(9))",
        """
        #| export
        _SIZES = (2, 3, 5)


        class Conv(nn.Module):
            sizes = _SIZES

            def forward(self, A):
                return zoh(A), tail(A)
        """,
    )
    assert book.export() == dedent(
        '''
        """Causal convolution.

        Home: chapter 04, "Three views" (chapters/04_three_views.ipynb).
        """

        import math

        from torch import Tensor, nn

        from s4lite.ops.discretize import zoh

        __all__ = ["Conv", "tail"]


        def tail(K: Tensor) -> Tensor:
            return K[..., math.floor(3.5) :]


        _SIZES = (2, 3, 5)


        class Conv(nn.Module):
            sizes = _SIZES

            def forward(self, A):
                return zoh(A), tail(A)
        '''
    )


def test_the_repository_is_clean_under_ruff(book):
    book.chapter(
        "04_views",
        TITLE,
        "import torch, os\nimport math as m",
        HEAD + '\n"""One line."""',
        "#| export\nimport sys\nX = m.pi\nY = {'a':  sys.maxsize}",
        "#| export\n@torch.no_grad()\ndef f(x): return x+X # why\n# end",
        "#| export\n" + "\n".join(f"a_rather_long_name_{i} = {i}" for i in range(20)),
    )
    book.export()
    for command in (["check", "--select=E,F,I,W"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=100"]
        done = subprocess.run([*ruff, str(book.package)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_all_is_sorted_as_ruff_wants_it(book):
    cells = [f"#| export\n{name} = 1" for name in ("step", "Conv", "S4", "conv", "Block", "_x")]
    book.chapter("04_views", TITLE, HEAD, *cells)
    assert '\n__all__ = ["S4", "Block", "Conv", "conv", "step"]\n' in book.export()


def test_the_repositorys_settings_of_ruff_count(book, monkeypatch):
    monkeypatch.setattr("export.ROOT", book.chapters.parent)
    book.chapter("04_views", TITLE, HEAD, "#| export\na = [1111111111, 2222222222, 3333333333]")
    settings = book.chapters.parent / "pyproject.toml"
    settings.write_text("[project]\nname = 'x'\n")
    assert "\na = [1111111111, 2222222222, 3333333333]\n" in book.export()
    settings.write_text("[tool.ruff]\nline-length = 20\n")
    assert "\na = [\n    1111111111,\n" in book.export()


def test_a_failing_ruff_is_an_error(book, refused, monkeypatch):
    monkeypatch.setattr("export.ROOT", book.chapters.parent)
    (book.chapters.parent / "pyproject.toml").write_text("[tool.ruff]\nline-length = 'long'\n")
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    refused("ruff check failed", "line-length")


def test_same_input_same_bytes(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\nimport math\nimport os\nx = math, os")
    book.chapter("05_b", "# B", "import math", "#| export nn.b\nf = math.pi\n_g = {1, 2}")
    book.export()
    first = book.files()
    for path in first:
        (book.package / path).unlink()
    book.export()
    assert book.files() == first
    assert len(first) == 2


def test_an_unchanged_file_is_not_written_again(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\nx = 1")
    book.export()
    path = book.package / "ops/conv.py"
    before = path.stat().st_mtime_ns
    book.export()
    assert path.stat().st_mtime_ns == before


# ---------------------------------------------------------------- directives


def test_default_exp_switches_the_module_from_there_on(book):
    book.chapter(
        "04_views",
        TITLE,
        "#| default_exp ops.conv",
        "#| export\na = 1",
        "#| default_exp ops.recurrence",
        "#| export\nb = 2",
        "#| export ops.conv\nc = 3",
        "#| export\nd = 4",
    )
    book.export()
    assert '__all__ = ["a", "c"]' in book.source("ops.conv")
    assert '__all__ = ["b", "d"]' in book.source("ops.recurrence")


def test_default_exp_and_export_in_one_cell(book):
    book.chapter("04_views", TITLE, f'{HEAD}\n#| export\n"""Doc."""\nimport math\na = math.pi')
    source = book.export()
    assert ast.get_docstring(ast.parse(source)).startswith("Doc.\n")
    assert "import math\n" in source and "a = math.pi\n" in source


def test_comments_and_blank_lines_may_stand_above_a_directive(book):
    book.chapter("04_views", TITLE, "#|  default_exp ops.conv", "# kept\n\n#|export\n#\na = 1")
    assert "# kept" in book.export()


@pytest.mark.parametrize(
    "line", ["# | export", " #| export", "#|export", "  #  |  export ops.conv"]
)
def test_directives_may_hold_spaces(book, line):
    book.chapter("04_views", TITLE, HEAD, f"\n{line}\na = 1", "\n# |z| < 1\nz = 0")
    assert book.export().endswith('\n__all__ = ["a"]\n\n\na = 1\n')


def test_prose_about_exports_is_no_directive(book):
    cell = "\n# export to the package, and why\n#| export\na = 1\n# export"
    book.chapter("04_views", TITLE, HEAD, cell)
    assert "# export to the package, and why\n" in book.export()


@pytest.mark.parametrize("source", ["{bad", "[]", "{}", '{"cells": [{"source": "a"}]}', "\xff"])
def test_a_file_that_is_no_notebook_is_refused(book, refused, source):
    (book.chapters / "05_bad.ipynb").write_bytes(source.encode("latin-1"))
    refused("05_bad.ipynb is no notebook")


def test_directives_leave_no_trace(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1", "#| export ops.conv\nb = 1")
    assert "#|" not in book.export()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("#| exporti\na = 1", 'unknown directive "#| exporti"'),
        ("#| hide\n1 + 1", 'unknown directive "#| hide"'),
        ("#| default_exp", "wants a module"),
        ("#| export ops/conv\na = 1", "wants a module"),
        ("#| export ops.conv nn.layer\na = 1", "wants a module"),
        ("#| default_exp __init__", "wants a module"),
        ("#| export ops.__init__\na = 1", "wants a module"),
        ("#| export __main__\na = 1", "wants a module"),
        ("#| export ops.class\na = 1", "wants a module"),
        ("#| export ops.x\u00b2\na = 1", "wants a module"),
        ("#export\na = 1", '"#export" is no directive'),
        ("\n# export ops.conv\na = 1", "is no directive"),
        (" # default_exp ops.conv\na = 1", "is no directive"),
        ("\n# | exporti\na = 1", 'unknown directive "# | exporti"'),
        ("a = 1\n#| export", "above the code"),
        ("#| export ops.conv\n#| export nn.layer\na = 1", "two export directives"),
        ("#| default_exp ops.a\n#| default_exp ops.b", "two default_exp directives"),
        ("#| default_exp ops.a\n#| export ops.b\na = 1", "default_exp ops.a, but export ops.b"),
        ("#| export\na = 1", "no default_exp above"),
        ("#| default_exp ops.conv", "nothing is exported to s4lite.ops.conv"),
        ("#| default_exp ops.conv\nimport math", "holds a docstring only"),
        ("#| default_exp ops.conv\na = 1", "holds a docstring only"),
    ],
)
def test_bad_directives_are_refused(book, refused, cell, message):
    book.chapter("04_views", TITLE, "1 + 1", cell)
    refused("04_views.ipynb, cell 3: ", message)


def test_a_default_exp_further_down_does_not_count(book, refused):
    book.chapter("04_views", TITLE, "#| export\na = 1", HEAD)
    refused("04_views.ipynb, cell 2: ", "no default_exp above")


def test_a_default_exp_counts_for_its_own_chapter_only(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    book.chapter("05_next", "# Next", "#| export\nb = 1")
    refused("05_next.ipynb, cell 2: ", "no default_exp above")


# ---------------------------------------------------------------- docstring and home


def test_a_module_names_all_its_home_chapters_in_short_lines(book):
    title = "Three views of one and the same linear time-invariant system"
    book.chapter("04_views", f"# {title}", f'{HEAD}\n"""Doc."""', "#| export\na = 1")
    head = "text:prose\n\n# The layer\n\n# Not the title"
    book.chapter("12_layer", head, "#| export ops.conv\nb = a")
    book.chapter("quickstart", "# Quickstart #", "#| export ops.conv\nc = a")
    source = book.export()
    assert " ".join(ast.get_docstring(ast.parse(source)).split()) == (
        f'Doc. Home: chapter 04, "{title}" (chapters/04_views.ipynb), '
        'and chapter 12, "The layer" (chapters/12_layer.ipynb), '
        'and "Quickstart" (chapters/quickstart.ipynb).'
    )
    assert max(map(len, source.splitlines())) <= 100


def test_a_chapter_that_exports_elsewhere_is_no_home(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    book.chapter("12_layer", "# The layer", "#| export nn.layer\nb = 1")
    assert "layer" not in book.export()


def test_a_docstring_of_several_lines_keeps_its_form(book):
    head = """
    #| default_exp ops.conv
    r\"\"\"One line.

    A paragraph with $\\Delta$:

        an example
    \"\"\"
    """
    book.chapter("04_views", TITLE, head, "#| export\na = 1")
    assert book.export().startswith(
        'r"""One line.\n\nA paragraph with $\\Delta$:\n\n    an example\n\nHome: chapter 04, '
    )


def test_without_docstring_the_home_stands_alone(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    assert book.export().startswith(
        '"""Home: chapter 04, "Three views" (chapters/04_views.ipynb)."""\n'
    )


def test_two_docstrings_are_refused(book, refused):
    book.chapter("04_views", TITLE, f'{HEAD}\n"""One."""', "#| export\na = 1")
    book.chapter("05_next", "# Next", f'{HEAD}\n"""Two."""', "#| export\nb = 1")
    refused("05_next.ipynb, cell 2: ", "already has a docstring")


def test_triple_quotes_in_a_docstring_are_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD + "\n'''Say \"\"\"hi\"\"\".'''", "#| export\na = 1")
    refused("cell 2: ", "triple quotes")


def test_a_chapter_without_title_is_refused(book, refused):
    book.chapter("04_views", "## no title", "text:```\n# no title\n```", HEAD, "#| export\na = 1")
    refused("04_views.ipynb", "no title")


# ---------------------------------------------------------------- comments


def test_comments_are_kept_wherever_they_stand(book):
    book.chapter(
        "04_views",
        TITLE,
        HEAD + '\n# above the docstring\n"""Doc."""\n# below the docstring',
        """
        #| export
        # c1 right above the first import
        import math

        # c2 above the second
        import os  # c3 behind it
        # c4 between imports, alone

        from collections import (
            OrderedDict,  # c5 inside an import
            deque,
        )
        # c6 right below the imports

        # c7 before a definition, with a blank line

        # c8 right above it
        @staticmethod  # c9 at a decorator
        def f(x):  # c10
            # c11 inside
            return math.pi, os.name, OrderedDict  # c12

            # c13 at its end
        # c14 right below

        # c15 alone at the end
        """,
        "#| export\n# c16 a cell of comments",
        "#| export\n_X = [  # c17\n    1,\n    # c18\n]\n# c19 the last line",
    )
    source = book.export()
    for comment in [f"# c{i}" for i in range(1, 20)] + ["# above", "# below"]:
        assert source.count(f"{comment}\n") + source.count(f"{comment} ") == 1, comment
    order = [source.index(f"# c{i}") for i in (4, *range(6, 20))]
    assert order == sorted(order)


def test_comments_travel_with_their_imports(book):
    book.chapter(
        "04_views",
        TITLE,
        HEAD,
        """
        #| export
        # of torch
        import torch  # behind torch
        # of math, and a little longer than the others are
        import math
        a = torch.float32, math.pi
        """,
        """
        #| export ops.other
        # of the future
        from __future__ import annotations
        # of s4lite
        from s4lite.ops.conv import a
        # of numpy
        import numpy
        # of abc
        from abc import ABC
        b = numpy.pi, ABC, a
        """,
    )
    imports = """
    # of math, and a little longer than the others are
    import math

    # of torch
    import torch  # behind torch

    __all__"""
    assert textwrap.dedent(imports) in book.export()
    imports = """
    # of the future
    from __future__ import annotations

    # of abc
    from abc import ABC

    # of numpy
    import numpy

    # of s4lite
    from s4lite.ops.conv import a

    __all__"""
    assert textwrap.dedent(imports) in book.source("ops.other")


def test_the_comment_of_a_dropped_import_stays_in_its_place(book):
    book.chapter(
        "04_views", TITLE, HEAD, "#| export\nimport math\n# above os\nimport os\n\na = math.pi"
    )
    source = book.export()
    assert "import os" not in source
    assert source.index("# above os") > source.index("__all__")


# ---------------------------------------------------------------- imports


def test_needed_imports_come_from_any_cell_of_the_chapter(book):
    book.chapter(
        "04_views",
        TITLE,
        "%matplotlib inline\n!ls\nimport math, sympy\nfrom torch import nn, Tensor as T",
        HEAD,
        "#| export\na = math.pi\nb: T = None",
        "import numpy as np",
        "#| export\ndef f(): return np.pi",
    )
    source = book.export()
    assert "import math\n\nimport numpy as np\nfrom torch import Tensor as T\n\n__all__" in source
    assert "sympy" not in source and "nn" not in source


def test_imports_of_another_chapter_do_not_count(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\nimport math\na = math.pi")
    book.chapter("05_next", "# Next", "#| export ops.next\nb = math.pi")
    refused("05_next.ipynb, cell 2: ", '"b" uses "math", which is neither defined nor imported')


def test_imports_of_several_cells_are_merged(book):
    book.chapter(
        "04_views",
        TITLE,
        HEAD,
        "#| export\nfrom torch import nn\nimport torch\na = nn",
        "#| export\nimport torch\nfrom torch import Tensor\nb = Tensor, torch.float32",
    )
    assert "import torch\nfrom torch import Tensor, nn\n\n__all__" in book.export()


def test_submodules_are_imported_too(book):
    book.chapter(
        "04_views", TITLE, "import torch\nimport torch.fft", HEAD, "#| export\na = torch.fft.rfft"
    )
    assert "import torch.fft\n" in book.export()


def test_a_submodule_counts_beside_its_package(book):
    book.chapter(
        "04_views", TITLE, "import torch.fft", HEAD, "#| export\nimport torch\na = torch.fft.rfft"
    )
    assert "import torch\nimport torch.fft\n" in book.export()


def test_self_imports_are_dropped(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1\n_b = 2")
    book.chapter(
        "12_layer",
        "# The layer",
        "from s4lite.ops.conv import a",
        "#| export ops.conv\nfrom s4lite.ops.conv import _b\nc = a, _b",
    )
    assert "import" not in book.export()


def test_a_self_import_under_another_name_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    book.chapter("12_layer", "# B", "#| export ops.conv\nfrom s4lite.ops.conv import a as b\nc = b")
    refused("12_layer.ipynb, cell 2: ", '"c" uses "b"')


def test_unused_names_of_an_import_are_dropped(book):
    cell = "#| export\nfrom math import (\n    pi,  # kept\n    tau,\n)\na = pi"
    book.chapter("04_views", TITLE, HEAD, cell)
    source = book.export()
    assert "    pi,  # kept\n" in source and "tau," not in source


def test_imports_inside_functions_stay_there(book):
    book.chapter(
        "04_views", TITLE, HEAD, "#| export\ndef f():\n    import triton\n    return triton.jit"
    )
    assert "    import triton\n" in book.export()


def test_imports_for_type_checking_stay_conditional(book):
    book.chapter("12_layer", "# The layer", "#| export nn.layer\nclass S4D: ...")
    conditional = """
    #| export
    if TYPE_CHECKING:
        # for types only
        from s4lite.nn.layer import S4D

    """
    book.chapter(
        "04_views",
        TITLE,
        "from typing import TYPE_CHECKING",
        HEAD,
        textwrap.dedent(conditional) + 'def f(x: "S4D") -> None: ...',
        textwrap.dedent(conditional) + 'def g(x: "S4D") -> None: ...',
    )
    head = """
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        # for types only
        from s4lite.nn.layer import S4D

    __all__ = ["f", "g"]


    def f("""
    assert textwrap.dedent(head) in book.export()


def test_imports_for_type_checking_come_from_any_cell(book):
    cell = """
    import typing
    if typing.TYPE_CHECKING:
        from torch import Tensor, nn
    """
    book.chapter("04_views", TITLE, cell, HEAD, '#| export\ndef f(x: "Tensor"): ...')
    head = """
    import typing

    if typing.TYPE_CHECKING:
        from torch import Tensor

    __all__"""
    assert textwrap.dedent(head) in book.export()


@pytest.mark.parametrize(
    "code",
    [
        "def f() -> 'Any': ...",
        "def f(x: 'dict[str, Any] | None'): ...",
        "x: list['Any'] = []",
        "def f(x): return cast('Any', x)",
        "T = TypeVar('T', bound='Any')",
    ],
)
@pytest.mark.parametrize("exported", ["", "#| export\n"])
def test_imports_of_quoted_names_are_kept(book, code, exported):
    imports = f"{exported}from typing import Any, TypeVar, cast"
    book.chapter("04_views", TITLE, HEAD, imports, f"#| export\n{code}")
    imported = next(line for line in book.export().split("\n") if line.startswith("from typing"))
    assert "Any" in imported
    assert ("cast" in imported) == ("cast" in code)


def test_a_word_in_a_string_is_no_import(book):
    code = "#| export\ndef f(disc: Literal['zoh'] = 'zoh'):\n    'zoh'\n    return {'zoh': 1}"
    book.chapter("03_d", "# D", "#| export ops.discretize\ndef zoh(): ...")
    imports = "from typing import Literal\nfrom s4lite.ops.discretize import zoh"
    book.chapter("04_views", TITLE, imports, HEAD, code, "zoh = 1")
    assert "import zoh" not in book.export()


@pytest.mark.parametrize("magic", ["x = !ls", "%matplotlib inline", "if 1:\n    !ls", "%%time"])
def test_imports_beside_magic_are_found(book, magic):
    cell = f"{magic}\nimport math"
    book.chapter("04_views", TITLE, cell, HEAD, "#| export\ndef f(): return math.pi")
    assert "import math\n" in book.export()


def test_what_magic_assigns_is_bound(book, refused):
    book.chapter("04_views", TITLE, "x = !ls", HEAD, "#| export\ndef f(): return x")
    refused('cell 4: "f" uses "x", which cell 2 defines without exporting')


def test_await_at_the_top_does_not_hide_imports(book):
    cell = "import math\nawait math.pi"
    book.chapter("04_views", TITLE, cell, HEAD, "#| export\ndef f(): return math.pi")
    assert "import math\n" in book.export()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("import scipy", "s4lite does not depend on scipy"),
        ("from scipy import fft as scipy", "s4lite does not depend on scipy"),
        ("from _tools.book import figure as scipy", "s4lite does not depend on _tools"),
        ("from s4lite.ops.zzz import scipy", "there is no s4lite.ops.zzz.scipy"),
        ("from s4lite.ops.other import scipy", "there is no s4lite.ops.other.scipy"),
        ("from s4lite.ops import scipy", "there is no s4lite.ops.scipy"),
        ("import s4lite.zzz as scipy", "there is no s4lite.zzz"),
        ("from .other import b as scipy", "write from s4lite, without dots"),
    ],
)
def test_imports_that_would_fail_are_refused(book, refused, statement, message):
    book.chapter("04_views", TITLE, "#| export ops.other\nb = 1")
    book.chapter("05_next", "# B", statement, "#| export ops.next\ndef f(): return scipy")
    refused(f's4lite.ops.next has "{statement}"', message)


GUARD = """
try:
    import lightning
    import scipy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('pip install "s4lite[train]"') from error
"""


@pytest.mark.parametrize(
    ("module", "guard", "imports", "message"),
    [
        ("train.loop", GUARD, "from lightning.pytorch import Trainer as t", None),
        ("train.loop", "", "import lightning as t", "does not depend on lightning"),
        ("train.loop", "import lightning", "import lightning as t", "depend on lightning"),
        ("train.loop", GUARD.replace("raise", "pass #"), "import lightning as t", "lightning"),
        ("train.loop", GUARD.replace("lightning", "numpy"), "import lightning as t", "lightning"),
        ("train.loop", GUARD, "import scipy as t", "does not depend on scipy"),
        ("ops.loop", GUARD, "import lightning as t", "does not depend on lightning"),
        ("train", GUARD, "import lightning as t", "both a module and a package"),
    ],
)
def test_an_extra_may_be_imported_behind_its_guard(book, refused, module, guard, imports, message):
    folder = book.package / module.partition(".")[0]
    folder.mkdir()
    (folder / "__init__.py").write_text(guard.replace("import scipy", "import math"))
    book.chapter("16_training", "# Training", imports, f"#| export {module}\ndef f(): return t")
    if message:
        refused(message)
    else:
        assert f"\n{imports}\n" in book.export(module)


def test_imports_of_the_package_inside_functions_are_checked(book, refused):
    code = "def f():\n    from s4lite.ops.zzz import g\n    return g"
    book.chapter("04_views", TITLE, HEAD, f"#| export\n{code}")
    refused("there is no s4lite.ops.zzz.g")


def test_imports_of_the_package_that_hold_are_kept(book):
    (book.package / "__init__.py").write_text("def by_hand(): ...\n")
    statements = [
        "from s4lite import by_hand as a",
        "from s4lite.ops import other as a",
        "from s4lite.ops.other import b as a",
        "from s4lite.ops.other import _c as a",
        "import torch.nn.functional as a",
        "import numpy as a",
        "from collections.abc import Callable as a",
    ]
    book.chapter("04_views", TITLE, "#| export ops.other\nb = 1\n_c = 1")
    for number, statement in enumerate(statements):
        cells = statement, f"#| export ops.m{number}\ndef f{number}(): return a"
        book.chapter(f"{10 + number}_b", "# B", *cells)
    for number, statement in enumerate(statements):
        assert f"\n{statement}\n" in book.export(f"ops.m{number}")


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ("from s4lite.ops.b import g", "from s4lite.ops.a import f"),
        ("from s4lite.ops import b as g", "from s4lite.ops.a import f"),
        ("import s4lite.ops.b as g", "from s4lite import by_hand as f"),
    ],
)
def test_a_circle_of_imports_is_refused(book, refused, there, back):
    (book.package / "__init__.py").write_text("from s4lite.ops.a import f\nby_hand = f\n")
    book.chapter("04_a", "# A", there, "#| export ops.a\ndef f(): return g")
    book.chapter("05_b", "# B", back, "#| export ops.b\ndef g(): return f")
    refused("a circle of imports: s4lite", "s4lite.ops.a imports s4lite.ops.b imports s4lite")


def test_a_circle_that_does_not_run_at_import_is_fine(book):
    late = """
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        from s4lite.ops.a import f
    """
    later = "def h():\n    from s4lite.ops.a import f\n    return f"
    book.chapter("04_a", "# A", "from s4lite.ops.b import g", "#| export ops.a\ndef f(): return g")
    book.chapter("05_b", "# B", late, f"#| export ops.b\ndef g(x: 'f'): ...\n{later}")
    assert "    from s4lite.ops.a import f\n" in book.export("ops.b")


def test_future_imports_come_along(book):
    book.chapter(
        "04_views", TITLE, "from __future__ import annotations", HEAD, "#| export\ndef f(): ..."
    )
    assert "\n\nfrom __future__ import annotations\n\n" in book.export()


def test_an_import_beats_the_builtin_of_its_name(book):
    book.chapter("04_views", TITLE, "from math import pow", HEAD, "#| export\ndef f(): return pow")
    assert "from math import pow\n" in book.export()


@pytest.mark.parametrize("exported", ["", "#| export\n"])
def test_star_imports_are_refused(book, refused, exported):
    book.chapter("04_views", TITLE, HEAD, f"{exported}from math import *", "#| export\nb = 1")
    refused("04_views.ipynb, cell 3: ", "from math import *")


def test_one_name_for_two_imports_is_refused(book, refused):
    imports = "from torch import fft", "from scipy import fft"
    book.chapter("04_views", TITLE, *imports, HEAD, "#| export\na = fft")
    refused("04_views.ipynb, cell 5: ", '"fft" is scipy.fft here, but torch.fft elsewhere')


def test_one_name_for_the_imports_of_two_chapters_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\nfrom torch import fft\na = fft")
    book.chapter("05_next", "# B", "from scipy import fft", "#| export ops.conv\nb = fft")
    refused("05_next.ipynb, cell 3: ", '"fft" is scipy.fft here, but torch.fft elsewhere')


def test_two_modules_may_import_different_things_under_one_name(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\nfrom torch import fft\na = fft")
    book.chapter("05_next", "# B", "from numpy import fft", "#| export ops.other\nb = fft")
    assert "from torch import fft" in book.export()
    assert "from numpy import fft" in book.source("ops.other")


def test_a_name_both_defined_and_imported_is_refused(book, refused):
    book.chapter(
        "04_views", TITLE, HEAD, "#| export\nfrom math import pi\na = pi", "#| export\npi = 3"
    )
    refused("04_views.ipynb, cell 4: ", '"pi" is imported too, as math.pi')


# ---------------------------------------------------------------- what may be exported


@pytest.mark.parametrize(
    "statement",
    [
        "print(1)",
        "a.x = 1",
        "a += 1",
        "a, b = 1, 2",
        "b: int",
        "assert a",
        "for i in range(3): pass",
        "if a: b = 1",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "if TYPE_CHECKING:\n    b = 1",
        "with open('x'): pass",
        "del a",
        "f'{a}'",
        "b = a['x'] = 1",
    ],
)
def test_experiments_are_refused(book, refused, statement):
    book.chapter("04_views", TITLE, HEAD, f"#| export\na = 1\n\n{statement}")
    refused("04_views.ipynb, cell 3: ", "only imports", statement.split("\n")[0])


def test_constants_may_call_builtins_and_the_standard_library(book):
    cell = """
    #| export
    import math
    from functools import partial
    from typing import TypeVar
    import torch
    a = frozenset("ab c".split())
    b: float = math.log(2)
    T = TypeVar("T")
    c = partial(max, default=None)
    d = e = {"x": torch.float64}
    "what d is"
    """
    book.chapter("04_views", TITLE, HEAD, cell)
    assert '__all__ = ["T", "a", "b", "c", "d", "e"]' in book.export()


@pytest.mark.parametrize(
    "value",
    [
        "torch.zeros(3)",
        "f(3)",
        "[f(i).x for i in range(3)]",
        "print('hi')",
        "open('x').read()",
        "os.getcwd()",
        "[print][0]('hi')",
        "len(3)",
    ],
)
@pytest.mark.parametrize("where", ["", "class A:\n    "])
def test_constants_may_not_compute(book, refused, value, where):
    imports = "import os\nimport torch\nfrom torch import zeros as len"
    code = f"#| export\ndef f(x): ...\n{where}a = {value}"
    book.chapter("04_views", TITLE, imports, HEAD, code)
    refused("04_views.ipynb, cell 4: a constant may not call ", value.split("(")[0].strip("["))


def test_two_statements_in_a_line_are_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\nimport math; a = math.pi")
    refused("04_views.ipynb, cell 3: ", "two statements in one line: import math; a")


def test_syntax_errors_are_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1\ndef f(:\n    pass")
    refused("04_views.ipynb, cell 3: ", "syntax error in line 3")


def test_magic_in_an_exported_cell_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\n%time\na = 1")
    refused("04_views.ipynb, cell 3: ", "syntax error in line 2")


@pytest.mark.parametrize(
    "line", ["from math import *", "return [y async for y in x]", "global x", "nonlocal y"]
)
def test_what_only_the_compiler_refuses_is_refused(book, refused, line):
    book.chapter("04_views", TITLE, HEAD, f"#| export\na = 1\ndef f(x):\n    {line}")
    refused("04_views.ipynb, cell 3: syntax error in line ")


def test_a_syntax_error_shown_on_purpose_is_not_our_concern(book):
    book.chapter("04_views", TITLE, HEAD, "def f(:", "#| export\na = 1")
    assert "a = 1" in book.export()


# ---------------------------------------------------------------- names defined


@pytest.mark.parametrize("second", ["def f(): ...", "class f: ...", "f = 1", "f: int = 1"])
def test_a_name_exported_twice_is_refused(book, refused, second):
    book.chapter("04_views", TITLE, HEAD, "#| export\ndef f(): ...", f"#| export\n{second}")
    refused('04_views.ipynb, cell 4: "f" is exported twice, first in 04_views.ipynb, cell 3')


def test_a_private_name_exported_twice_by_two_chapters_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\n_f = 1")
    book.chapter("05_next", "# B", "#| export ops.conv\n_f = 2")
    refused('05_next.ipynb, cell 2: "_f" is exported twice, first in 04_views.ipynb, cell 3')


def test_overloads_are_one_name(book):
    cell = """
    #| export
    from typing import overload
    @overload
    def f(x: int) -> int: ...
    @overload
    def f(x: str) -> str: ...
    def f(x): return x
    """
    book.chapter("04_views", TITLE, HEAD, cell)
    assert '__all__ = ["f"]' in book.export()


def test_overload_goes_by_any_name(book):
    imports = "import typing as t\nfrom typing import overload as over"
    code = "@t.overload\ndef f(x: int): ...\n@over\ndef f(x: str): ...\ndef f(x): return x"
    book.chapter("04_views", TITLE, imports, HEAD, f"#| export\n{code}")
    assert '__all__ = ["f"]' in book.export()


def test_only_typings_overload_is_one(book, refused):
    cells = [f"#| export\n@nooverload\ndef f(): return {i}" for i in range(2)]
    book.chapter("04_views", TITLE, HEAD, "#| export\ndef nooverload(f): return f", *cells)
    refused('cell 5: "f" is exported twice, first in 04_views.ipynb, cell 4')


@pytest.mark.parametrize("other", ["ops.conv.fft", "ops"])
def test_a_module_that_is_also_a_package_is_refused(book, refused, other):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1", f"#| export {other}\nb = 1")
    refused("cannot be both a module and a package", min("ops.conv", other, key=len))


def test_a_module_beside_a_package_made_by_hand_is_refused(book, refused):
    (book.package / "ops").mkdir()
    (book.package / "ops/__init__.py").write_text("")
    book.chapter("04_views", TITLE, "#| export ops\na = 1")
    refused("s4lite.ops cannot be both a module and a package")


def test_a_package_file_made_by_hand_that_does_not_parse_is_named(book, capsys):
    (book.package / "__init__.py").write_text("def f(:\n")
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    assert book.run() == 1
    assert "invalid syntax (__init__.py, line 1)" in capsys.readouterr().err


def test_a_name_that_shadows_another_modules_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\ndef f(): ...")
    book.chapter("05_next", "# B", "#| export ops.other\nclass f: ...")
    refused(
        '05_next.ipynb, cell 2: "f" would shadow the "f" of s4lite.ops.conv '
        "(04_views.ipynb, cell 3)"
    )


def test_private_names_of_two_modules_may_agree(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\n_f = 1")
    book.chapter("05_next", "# B", "#| export ops.other\n_f = 1")
    assert "_f = 1" in book.export() and "_f = 1" in book.source("ops.other")
    assert "__all__ = []" in book.source("ops.conv")


def test_a_hand_made_all_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\n__all__ = ['a']")
    refused("cell 3: ", "__all__ is made by the exporter")


# ---------------------------------------------------------------- names used


@pytest.mark.parametrize(
    "code",
    [
        "def f(a, /, b, *c, d=1, **e): return a, b, c, d, e",
        "def f():\n    x = 1\n    def g(): return x\n    return g",
        "def f():\n    for i, (j, k) in []: print(i, j, k)",
        "def f(): return [i for i in range(3) if i], {k: v for k, v in ()}, (lambda z: z)",
        "def f():\n    with open('x') as h: return h\n",
        "def f():\n    try: ...\n    except OSError as error: raise ValueError from error",
        "def f(x): return (y := x) + y",
        "def f(x):\n    match x:\n        case [a, *b]: return a, b\n        case {1: c}: return c",
        "def f(): return later()\ndef later(): return f",
        "class A:\n    x = 1\n    y = x\n    def f(self): return A, super().f(), __class__",
        "class A:\n    class B: ...\n    def f(self) -> 'B': return self.anything.goes",
        "def f():\n    global G\n    return G\nG = 1",
        "def f(): return __name__, __file__, NotImplemented, print",
        "def f():\n    class L: ...\n    return L",
        "def f():\n    import os.path as p\n    return p",
        "def f(x: 'Later') -> 'list[Later]': ...\nclass Later: ...",
    ],
)
def test_names_are_looked_up_as_python_does(book, code):
    book.chapter("04_views", TITLE, HEAD, f"#| export\n{code}")
    compile(book.export(), "module", "exec")


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return x",
        "def f(a=x): ...",
        "def f(a: x): ...",
        "def f() -> x: ...",
        "def f():\n    a: x = 1",
        "@x\ndef f(): ...",
        "@x.y(1)\ndef f(): ...",
        "class f(x): ...",
        "class f:\n    y = x",
        "class f:\n    x = 1\n    def g(self): return x",
        "def f(): return [x for i in range(3)]",
        "def f(): return [i for i in x]",
        "def f(): return lambda: x",
        "def f():\n    def g(x): ...\n    return g(x)",
        "def f(): return x.y",
        "def f(): return f'{x}'",
        "f = x",
        "f = [x]",
    ],
)
def test_unknown_names_are_refused(book, refused, code):
    book.chapter("04_views", TITLE, HEAD, f"#| export\n{code}")
    refused('04_views.ipynb, cell 3: "f" uses "x", which is neither defined nor imported')


@pytest.mark.parametrize("name", ["x", "sum"])
@pytest.mark.parametrize(
    "cell", ["{} = 1", "a, {} = 1, 2", "for {} in (): ...", "def {}(): ...", "if 1: {}: int = 1"]
)
def test_a_name_of_a_cell_that_is_not_exported_is_refused(book, refused, cell, name):
    book.chapter("04_views", TITLE, HEAD, cell.format(name), f"#| export\ndef f(): return {name}")
    refused(f'cell 4: "f" uses "{name}", which cell 3 defines without exporting')


def test_another_meaning_of_an_earlier_chapters_name_is_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\ndef step(): ...")
    book.chapter(
        "05_next", "# B", "def step(): return 1", "#| export ops.conv\ndef run(): return step()"
    )
    refused('05_next.ipynb, cell 3: "run" uses "step", which cell 2 defines without exporting')


def test_what_a_chapter_exports_counts_even_if_a_draft_came_first(book):
    book.chapter(
        "04_views", TITLE, HEAD, "def f(): ...", "#| export\ndef f(): return 1", "#| export\ng = f"
    )
    assert "return 1" in book.export()


def test_a_name_of_another_module_wants_its_import(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1", "#| export ops.other\nb = a")
    refused('cell 4: "b" uses "a" without its import: from s4lite.ops.conv import a')


ANEW = [
    "def {}(x): return 42",
    "{} = 5",
    "{} += 1",
    "for {} in (): ...",
    "if 1:\n    from torch import floor as {}",
    "def patch():\n    global {}\n    {} = 5",
    "del {}",
    "%time 1\n{} = !ls",
]


@pytest.mark.parametrize("anew", ANEW)
def test_an_import_that_is_bound_anew_is_refused(book, refused, anew):
    anew = anew.replace("{}", "floor")
    code = "#| export\ndef f(x): return floor(x)"
    for cells in (anew, code), (code, anew):
        book.chapter("04_views", TITLE, "from math import floor", HEAD, *cells)
        refused(
            f'cell {4 + cells.index(anew)}: "floor" gets another meaning than in s4lite.ops.conv, '
            f"exported from cell {4 + cells.index(code)}"
        )


@pytest.mark.parametrize("anew", [*ANEW, "from math import {}", "#| export ops.other\n{} = 1"])
def test_an_export_that_is_bound_anew_is_refused(book, refused, anew):
    cells = "#| export\ndef _g(x): return 1", anew.replace("{}", "_g")
    book.chapter("04_views", TITLE, HEAD, *cells)
    refused('cell 4: "_g" gets another meaning than in s4lite.ops.conv, exported from cell 3')


def test_names_may_be_imported_again_and_reused_in_experiments(book):
    book.chapter(
        "04_views",
        TITLE,
        "import torch\nfrom math import floor\nN = 4",
        "def f(x): return 'a draft'",
        HEAD,
        "#| export\ndef f(x): return floor(x)\ndef _g(): return torch",
        "#| export ops.other\nfrom s4lite.ops.conv import _g, f\ndef h(N): return f(N), _g()",
        "for x in range(N): print(x)\nN, y = 1, 2",
        "import torch\nfrom math import floor\nfrom s4lite import h\nfrom s4lite.ops.conv import f",
        "def test():\n    f = torch = floor = 0\n    return [f for f in (torch, floor)]",
    )
    assert "return floor(x)" in book.export()
    assert "from s4lite.ops.conv import _g, f\n" in book.source("ops.other")


@pytest.mark.parametrize(
    "code",
    [
        "def f(x=later()): ...",
        "class f(later): ...",
        "@later\ndef f(): ...",
        "f = [later]",
        "f = [later for i in range(3)]",
        "class f:\n    y = later",
        "def f(x: later): ...",
    ],
)
def test_names_used_before_their_definition_are_refused(book, refused, code):
    later = "def later(f=None): ..."
    book.chapter("04_views", TITLE, HEAD, later, f"#| export\n{code}", f"#| export\n{later}")
    refused("F821 Undefined name `later`", "ops/conv.py")


@pytest.mark.parametrize(
    "code",
    [
        "def f(x: 'Foo'): ...",
        "def f() -> 'list[Foo]': ...",
        "def f(x: list['Foo']): ...",
        "def f(x): return cast('Foo', x)  # noqa: F821",
        "def f(): return __Foo__",
    ],
)
def test_unknown_names_that_are_hard_to_see_are_refused(book, refused, code):
    book.chapter("04_views", TITLE, "from typing import cast", HEAD, f"#| export\n{code}")
    refused("F821 Undefined name `", "Foo")


def test_names_of_ipython_are_refused(book, refused):
    book.chapter("04_views", TITLE, HEAD, "#| export\ndef f(): display(1)")
    refused('"f" uses "display"')


# ---------------------------------------------------------------- order, --check, stale files


def test_cells_come_in_the_order_of_the_book(book):
    book.chapter("12_layer", "# The layer", "#| export ops.conv\nc = 3")
    book.chapter("04_views", TITLE, HEAD, "#| export\nb = 1", "#| export\na = 2")
    assert book.export().endswith("b = 1\n\n\na = 2\n\n\nc = 3\n")


def test_check_prints_a_diff_and_writes_nothing(book, capsys):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1", "#| export ops.other\nb = 1")
    book.export()
    path = book.package / "ops/conv.py"
    path.write_text(path.read_text().replace("a = 1", "a = 2"))
    before = book.files()
    capsys.readouterr()
    assert book.run("--check") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("--- s4lite/ops/conv.py\n+++ s4lite/ops/conv.py (from chapters)\n@@ ")
    assert "\n-a = 2\n+a = 1\n" in printed
    assert "other" not in printed
    assert book.files() == before


def test_check_sees_a_missing_module(book, capsys):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    assert book.run("--check") == 1
    assert "\n+a = 1\n" in capsys.readouterr().out
    assert book.files() == {}


def test_check_says_in_sync(book, capsys):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    book.export()
    capsys.readouterr()
    assert book.run("--check") == 0
    assert "in sync" in capsys.readouterr().out


def test_check_refuses_too(book, capsys):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = b")
    assert book.run("--check") == 1
    assert "export refused: 04_views.ipynb, cell 3" in capsys.readouterr().err


def test_a_stale_module_is_reported_then_removed(book, capsys):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1", "#| export ops.old\nb = 1")
    book.export()
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    assert book.run("--check") == 1
    assert "\n-b = 1\n" in capsys.readouterr().out
    assert "ops/old.py" in book.files()
    assert book.run() == 0
    assert list(book.files()) == ["ops/conv.py"]


@pytest.mark.parametrize("source", ["x = 1\n", '"""My home."""\n', "def f(:\n"])
def test_a_module_made_by_hand_is_refused_not_removed(book, refused, source):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    (book.package / "own.py").write_text(source)
    refused("s4lite/own.py is of no chapter")


def test_files_that_are_made_by_hand_are_left_alone(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = 1")
    (book.package / "ops").mkdir()
    hand = {"__init__.py": b"x", "ops/__init__.py": b"y", "__main__.py": b"z", "py.typed": b""}
    for file, source in hand.items():
        (book.package / file).write_bytes(source)
    book.export()
    assert book.run("--check") == 0
    assert hand.items() <= book.files().items()


# ---------------------------------------------------------------- for the site


def test_exports_tell_chapter_cell_and_section(book):
    book.chapter(
        "04_three_views",
        TITLE,
        HEAD,
        "#| export\ndef a(): ...",
        "## Why pad?\n\nText.\n\n### Deeper\n\n```\n## no heading\n```",
        "#| export nn.layer\nclass B: ...\n\n_c = 1",
    )
    assert exports(book.chapters) == {
        ("ops.conv", "a"): ("04_three_views", 2, "Three views"),
        ("nn.layer", "B"): ("04_three_views", 4, "Why pad?"),
        ("nn.layer", "_c"): ("04_three_views", 4, "Why pad?"),
    }
    assert exports(book.chapters)["nn.layer", "B"].section == "Why pad?"


def test_exports_refuse_as_well(book):
    book.chapter("04_views", TITLE, HEAD, "#| export\na = b")
    with pytest.raises(ExportError, match=r'"a" uses "b"'):
        exports(book.chapters)
