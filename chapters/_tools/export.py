"""Write the package from the chapters.

    python chapters/_tools/export.py [--check] [--chapters DIR] [--package DIR]

The first lines of a code cell say where it goes (module names are relative to the package):

    #| default_exp ops.conv   the current module, from here on; the cell may hold its docstring
    #| export                 this cell goes to the current module
    #| export ops.conv        this cell goes to that module, whichever is the current one

A module is its docstring with its home chapters, the imports that it needs, a sorted `__all__`, and
its cells in the order of the book. Imports may stand in any code cell of the chapter. Whatever
would make the package differ from what the book shows is refused, with cell and name. So is a
module that could not be imported: for a name unknown at that point, for an import of something
that the package does not have or depend on, or for a circle of imports. Folders named in EXTRAS may
import more if their `__init__.py` says, where it is missing, what to install.

`--check` writes nothing: it prints what would change and exits 1, or says "in sync".

Every `.py` of the package is written here, except `__init__.py` and `__main__.py`. One that no
chapter exports is stale: removed if its docstring names a home chapter, as all modules from here
do, refused otherwise. So nothing made by hand is ever deleted.
"""

import argparse
import ast
import builtins
import contextlib
import difflib
import graphlib
import inspect
import json
import keyword
import re
import subprocess
import symtable
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 100
BY_HAND = {"__init__.py", "__main__.py"}
BUILTINS = set(dir(builtins))
DEPENDENCIES = {"numpy", "torch"}  # besides the standard library; see pyproject.toml
# What some folders may import too, each behind a guard in its `__init__.py`, see `guarded_imports`.
EXTRAS = {"train": {"lightning", "safetensors"}, "cli": {"typer"}}
# What constants may call: types and a few functions, and these parts of the standard library.
PURE = {name for name, each in vars(builtins).items() if isinstance(each, type)}
PURE |= {"len", "max", "min", "sorted", "sum"}
PURE_MODULES = {"collections", "dataclasses", "enum", "functools", "math", "re", "typing"}

DUNDER = re.compile(r"__\w+__")  # names that Python itself puts into a module or a class
DIRECTIVE = re.compile(r"(?:#\||\s*#\s*\|\s*(?=export|default_exp))\s*(\S*)\s*(.*?)\s*$")
LOOKALIKE = re.compile(r"\s*#\s*(export|default_exp)(\s+[\w.]+)?\s*$")
MAGIC = re.compile(r"^([ \t]*)([\w, ]+=)?[ \t]*[%!].*$", re.MULTILINE)
MODULE_NAME = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)*", re.ASCII)
FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(##?)\s+(.*?)(?:\s+#+)?\s*$", re.MULTILINE)
HOME = re.compile(r"^Home: .*\(\S+\.ipynb\)\.$", re.MULTILINE | re.DOTALL)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
Import = ast.Import | ast.ImportFrom


class ExportError(Exception):
    """Something in a chapter that must not get into the package."""


class Binding(NamedTuple):
    """What gives a name its meaning in a chapter, from there on."""

    cell: "Cell"
    target: str  # what an import stands for; empty for other code
    statement: str  # an import of this name alone


class Export(NamedTuple):
    """Where the book defines an exported name."""

    notebook: str  # the file's name without its suffix
    cell: int  # index among all cells of the notebook, from 0
    section: str  # the `##` heading above it, or else the chapter's title


@dataclass
class Cell:
    """A code cell; `module` is None if nothing of it is exported."""

    chapter: "Chapter"
    index: int
    section: str
    source: str  # with directives blanked, so that line numbers stay
    module: str | None = None
    is_head: bool = False  # has a default_exp
    is_exported: bool = False  # has an export
    statements: list[ast.stmt] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Its place for readers, counted from 1 among all cells."""
        return f"{self.chapter.path.name}, cell {self.index + 1}"

    def refuse(self, message: str) -> ExportError:
        """An error that names this cell."""
        return ExportError(f"{self.where}: {message}")


@dataclass
class Chapter:
    """A notebook: its title and its code cells."""

    path: Path
    title: str = ""
    cells: list[Cell] = field(default_factory=list)

    @property
    def home(self) -> str:
        """How a module names this chapter as its home."""
        number = re.match(r"\d+", self.path.name)
        which = f"chapter {number[0]}, " if number else ""
        return f'{which}"{self.title}" ({self.path.parent.name}/{self.path.name})'

    @cached_property
    def bindings(self) -> dict[str, list[Binding]]:
        """Name -> whatever binds it in the chapter, in order, exported or not."""
        found: dict[str, list[Binding]] = {}
        for cell in self.cells:
            for node in cell.statements:
                others = ((name, "", "") for name in bound_names(node))
                for name, *what in list(imported_names(node)) or others:
                    found.setdefault(name, []).append(Binding(cell, *what))
        return found


# ---------------------------------------------------------------- reading the chapters


def read_chapter(path: Path) -> Chapter:
    """Read a notebook, follow its directives and parse its code."""
    chapter, section, default = Chapter(path), "", None
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        contents = [(raw["cell_type"], "".join(raw["source"])) for raw in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path.name} is no notebook: {error!r}") from None
    for index, (kind, source) in enumerate(contents):
        if kind == "markdown":
            for level, text in HEADING.findall(FENCED.sub("", source)):
                if level == "##":
                    section = text
                else:
                    chapter.title = chapter.title or text
        elif kind == "code":
            cell = Cell(chapter, index, section or chapter.title, source)
            default = follow_directives(cell, default)
            parse(cell)
            chapter.cells.append(cell)
    if not chapter.title and any(cell.module for cell in chapter.cells):
        raise ExportError(f"{path.name} exports, but has no title for its modules to name")
    return chapter


def follow_directives(cell: Cell, default: str | None) -> str | None:
    """Take the directives off the cell's head and set its module; return the default module."""
    lines, in_head = cell.source.split("\n"), True
    for number, line in enumerate(lines):
        in_head = in_head and line.strip()[:1] in ("", "#")
        if in_head and LOOKALIKE.match(line):
            raise cell.refuse(f'"{line}" is no directive, but looks like one: #| export')
        if not (found := DIRECTIVE.match(line)):
            continue
        directive, module = found.groups()
        if not in_head:
            raise cell.refuse(f'"{line}" must stand above the code')
        if directive not in ("export", "default_exp"):
            raise cell.refuse(f'unknown directive "{line}": there are default_exp and export')
        if (module or directive == "default_exp") and not is_module_name(module):
            raise cell.refuse(f'"{line}" wants a module like ops.conv')
        if cell.is_exported if directive == "export" else cell.is_head:
            raise cell.refuse(f"two {directive} directives in one cell")
        if directive == "default_exp":
            cell.is_head, default = True, module
        else:
            cell.is_exported = True
        cell.module = module or default
        if cell.module is None:
            raise cell.refuse("export, but no default_exp above says to which module")
        if cell.is_head and cell.module != default:
            raise cell.refuse(f"default_exp {default}, but export {cell.module}")
        lines[number] = ""
    cell.source = "\n".join(lines)
    return default


def is_module_name(name: str) -> bool:
    """Can it be a module of the package, and is it none of those that are made by hand?"""
    bad = any(keyword.iskeyword(part) or f"{part}.py" in BY_HAND for part in name.split("."))
    return MODULE_NAME.fullmatch(name) is not None and not bad


def parse(cell: Cell) -> None:
    """Parse the cell's code. Only what is exported has to be plain Python."""
    if cell.module is not None:
        sources, flags = [cell.source], 0
    else:  # IPython also knows magics, shell lines and `await` at the top
        plain = MAGIC.sub(lambda m: f"{m[1]}{m[2]} 0" if m[2] else f"{m[1]}pass", cell.source)
        sources, flags = [cell.source, plain], ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for source in sources:
        try:
            compile(source, cell.where, "exec", flags, dont_inherit=True)  # sees more than ast does
            cell.statements = ast.parse(source).body
            break
        except SyntaxError as error:
            if cell.module is not None:
                raise cell.refuse(f"syntax error in line {error.lineno}: {error.msg}") from None
    for node in (inner for outer in cell.statements for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            raise cell.refuse(f"from {node.module} import * hides which names are used")


# ---------------------------------------------------------------- names in a statement


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a definition or an assignment binds: those that can be exported."""
    if isinstance(node, Definition):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def module_names(node: ast.AST, wanted: Callable[[symtable.Symbol], bool]) -> set[str]:
    """The names of a statement's module that are wanted: no arguments, locals or attributes."""

    def walk(table: symtable.SymbolTable, outermost: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if wanted(symbol) and (outermost or symbol.is_global()):
                yield symbol.get_name()
        for inner in table.get_children():
            yield from walk(inner, False)

    return set(walk(symtable.symtable(ast.unparse(node), "cell", "exec"), True))


def bound_names(node: ast.stmt) -> set[str]:
    """All names that a statement binds in its module, however it does it."""
    return module_names(node, lambda symbol: symbol.is_assigned() or symbol.is_imported())


def used_names(node: ast.AST) -> set[str]:
    """The names that a statement looks up in its module."""
    return module_names(node, symtable.Symbol.is_referenced)


def quoted_names(node: ast.AST) -> set[str]:
    """The names in strings that are code, as annotations may be; ruff knows which of them are."""
    found: set[str] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            with contextlib.suppress(SyntaxError, ValueError):
                code = ast.walk(ast.parse(each.value, mode="eval"))
                found |= {inner.id for inner in code if isinstance(inner, ast.Name)}
    return found


def imported_names(node: ast.stmt) -> Iterator[tuple[str, str, str]]:
    """For each name that an import binds: the name, what it stands for, an import of it alone.

    From `if TYPE_CHECKING:` the imports come as one.
    """
    if is_type_checking(node):
        for name, target, _ in (each for inner in node.body for each in imported_names(inner)):
            yield name, target, ast.unparse(node)
    for alias in node.names if isinstance(node, Import) else ():
        if isinstance(node, ast.Import):
            name = alias.asname or alias.name.partition(".")[0]
            yield name, alias.name if alias.asname else name, ast.unparse(ast.Import([alias]))
        else:
            alone = ast.ImportFrom(node.module, [alias], node.level)
            origin = "." * node.level + (node.module or "")
            yield alias.asname or alias.name, f"{origin}.{alias.name}", ast.unparse(alone)


def is_future(node: ast.stmt) -> bool:
    """Is it `from __future__ import ...`?"""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def is_docstring(node: ast.stmt) -> bool:
    """Is it a string that stands alone?"""
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


def is_overload(node: ast.stmt, chapter: Chapter) -> bool:
    """Is it decorated with `typing.overload`, under whatever name?"""
    for decorator in getattr(node, "decorator_list", []):
        root, *rest = ast.unparse(decorator).split(".")
        targets = [each.target for each in chapter.bindings.get(root, [])]
        if "typing.overload" in (".".join([target, *rest]) for target in targets):
            return True
    return False


def is_type_checking(node: ast.AST) -> bool:
    """Is it `if TYPE_CHECKING:` around imports only?"""
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        and all(isinstance(inner, Import) for inner in node.body)
        and not node.orelse
    )


# ---------------------------------------------------------------- building the modules


class Module:
    """One module of the package, made from the cells that are exported to it."""

    def __init__(self, package: str, name: str, cells: list[Cell]):
        self.package = package
        self.full_name = f"{package}.{name}"
        self.cells = cells
        self.uses = [
            (cell, node, used_names(node.test if isinstance(node, ast.If) else node))
            for cell in cells
            for node in cell.statements
            if not isinstance(node, Import)
        ]
        self.used = set().union(*(names | quoted_names(node) for _, node, names in self.uses))
        self.docstring: str | None = None
        self.defined: dict[str, Cell] = {}
        self.imported: dict[str, str] = {}  # name -> what it stands for
        self.imports: list[str] = []  # as exported cells have them, with comments
        self.needed: list[str] = []  # name by name, without; ruff merges the two
        self.typing: list[str] = []  # `if TYPE_CHECKING:` blocks
        self.body: list[str] = []
        for cell in cells:
            self.sort_lines(cell)

    def sort_lines(self, cell: Cell) -> None:
        """Part a cell into docstring, imports and body, each with its comments."""
        lines: list[str | None] = [*cell.source.split("\n")]
        end = 0
        for node in cell.statements:
            start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
            text = cell.source.split("\n")[start]
            if start < end:
                raise cell.refuse(f"two statements in one line: {text}")
            above, end = start, node.end_lineno  # the statement is lines[start:end]
            while above > 0 and (lines[above - 1] or "").startswith("#"):
                above -= 1

            if cell.is_head and node is cell.statements[0] and is_docstring(node):
                if self.docstring is not None:
                    raise cell.refuse(f"{self.full_name} already has a docstring")
                self.docstring = node.value.value
                if '"""' in self.docstring:
                    raise cell.refuse("a module's docstring cannot hold triple quotes")
            elif cell.is_head and not cell.is_exported:
                raise cell.refuse("a default_exp cell without export holds a docstring only")
            elif isinstance(node, Import) or is_type_checking(node):
                if self.take_import(cell, node, "\n".join(lines[above:end])):
                    start = above  # a comment right above an import travels with it
            else:
                self.take_definition(cell, node, text)
                continue
            lines[start:end] = [None] * (end - start)
        self.body.append("\n".join(line for line in lines if line is not None).strip("\n"))

    def take_import(self, cell: Cell, node: ast.stmt, source: str) -> bool:
        """Add an import to the module's; False if none of its names is needed."""
        every = names = list(imported_names(node))
        if isinstance(node, ast.If):
            self.typing.append(source)
        else:
            names = [each for each in every if not self.is_own(each[1])]
            if not is_future(node) and self.used.isdisjoint(name for name, *_ in names):
                return False
            # Whole if it can be, with the comments in it: ruff takes out single names.
            self.imports += [source] if names == every else [alone for *_, alone in names]
        for name, target, _ in names:
            self.bind(cell, name, target)
        return True

    def take_definition(self, cell: Cell, node: ast.stmt, text: str) -> None:
        """Note what a statement defines; refuse one that is no definition."""
        names = defined_names(node)
        constant = (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and len(names) == len(getattr(node, "targets", [node]))  # plain names only
        )
        if not (isinstance(node, Definition) or constant or is_docstring(node)):
            raise cell.refuse(f"only imports, definitions and constants are exported, not: {text}")
        for name in () if is_overload(node, cell.chapter) else names:
            if name == "__all__":
                raise cell.refuse("__all__ is made by the exporter")
            if name in self.defined:
                first = self.defined[name].where
                raise cell.refuse(f'"{name}" is exported twice, first in {first}')
            self.defined[name] = cell

    def bind(self, cell: Cell, name: str, target: str) -> None:
        """Note that an imported name stands for a target, the same one all over the module."""
        if (other := self.imported.setdefault(name, target)) != target:
            raise cell.refuse(f'"{name}" is {target} here, but {other} elsewhere in this module')

    def is_own(self, target: str) -> bool:
        """Is this the module itself, or something in it?"""
        return f"{target}.".startswith(f"{self.full_name}.")

    def resolve(self, owners: dict[str, "Module"]) -> None:
        """Add the chapters' imports that are needed, refuse names that stay unknown.

        `owners` tells which module defines a public name of the package.
        """
        for cell, node, names in self.uses:
            for name in sorted(names):
                self.add(cell, name, self.look_up(cell, node, name, owners))
            self.check_constants(cell, node)
        for cell, node, _ in self.uses:
            for name in sorted(quoted_names(node) - self.imported.keys() - self.defined.keys()):
                self.add(cell, name, self.find_imports(cell.chapter, name))
        for name, cell in self.defined.items():
            self.check_meaning(cell, name, {f"{self.package}.{name}"})
            if name in self.imported:
                raise cell.refuse(f'"{name}" is imported too, as {self.imported[name]}')
        for chapter in {cell.chapter.path: cell.chapter for cell in self.cells}.values():
            for cell in chapter.cells:  # what code means depends on the future, used or not
                self.needed += [ast.unparse(node) for node in cell.statements if is_future(node)]

    def add(self, cell: Cell, name: str, imports: list[Binding]) -> None:
        """Add the imports of a name that a cell uses to the module's."""
        for _, target, statement in imports:
            if not statement.startswith("if "):
                self.needed.append(statement)
            elif name not in self.imported:
                self.typing.append(statement)
                condition = re.match(r"if (\w+)", statement)[1]
                self.add(cell, condition, self.find_imports(cell.chapter, condition))
            self.bind(cell, name, target)

    def find_imports(self, chapter: Chapter, name: str) -> list[Binding]:
        """The imports of a name in a chapter, but from this module itself."""
        found = chapter.bindings.get(name, [])
        return [each for each in found if each.statement and not self.is_own(each.target)]

    def look_up(self, cell: Cell, node: ast.stmt, name: str, owners: dict) -> list[Binding]:
        """The imports that a name needs; refuse one that would not mean what it means in the book.

        The chapter's own definitions come first, then its imports, then what earlier chapters
        brought into the module, then builtins.
        """
        chapter = cell.chapter
        if name in self.defined and self.defined[name].chapter is chapter:
            return []
        if imports := self.find_imports(chapter, name):
            self.check_meaning(cell, name, {each.target for each in imports})
            return imports
        uses = f'"{next(iter(defined_names(node)), "the cell")}" uses "{name}"'
        known = name in self.defined or name in self.imported
        if not known and name in owners:
            origin = owners[name].full_name
            raise cell.refuse(f"{uses} without its import: from {origin} import {name}")
        for other in chapter.bindings.get(name, []):
            if not other.statement:
                where = f"cell {other.cell.index + 1}"
                raise cell.refuse(f"{uses}, which {where} defines without exporting")
        if not (known or name in BUILTINS or DUNDER.fullmatch(name)):
            raise cell.refuse(f"{uses}, which is neither defined nor imported")
        return []

    def check_meaning(self, cell: Cell, name: str, meanings: set[str]) -> None:
        """Refuse to bind a name anew, in its chapter, once it means what it means in the module.

        A draft above is fine: what runs in the end is what is exported.
        """
        settled = False
        for other, target, _ in cell.chapter.bindings[name]:
            meaning = target or f"{self.package}.{other.module}.{name}"
            if meaning in meanings or meaning == f"{self.full_name}.{name}":
                settled = True
            elif settled:
                message = f'"{name}" gets another meaning than in {self.full_name}'
                raise other.refuse(f"{message}, exported from cell {cell.index + 1}")

    def check_constants(self, cell: Cell, node: ast.stmt) -> None:
        """Refuse a constant that computes, in the module or a class, or does something else."""
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                self.check_constants(cell, inner)
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for call in (each for each in ast.walk(value or ast.Pass()) if isinstance(each, ast.Call)):
            root = call.func
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            pure = isinstance(root, ast.Constant | ast.Call)  # "a b".split(); calls come by alone
            if isinstance(root, ast.Name) and root.id in self.imported:
                pure = self.imported[root.id].partition(".")[0] in PURE_MODULES
            elif isinstance(root, ast.Name):
                pure = root.id in PURE - self.defined.keys()
            if not pure:
                what = ast.unparse(call.func)
                raise cell.refuse(f"a constant may not call {what}: {ast.unparse(node)}")

    def render(self) -> str:
        """The module's source, to be sorted and formatted by ruff."""
        homes = dict.fromkeys(cell.chapter.home for cell in self.defined.values())
        text = textwrap.fill(
            f"Home: {', and '.join(homes)}.",
            WIDTH - 7,  # it may share its line with the quotes
            break_long_words=False,
            break_on_hyphens=False,
        )
        if self.docstring:
            text = f"{inspect.cleandoc(self.docstring)}\n\n{text}\n"
        docstring = ('r"""' if "\\" in text else '"""') + text + '"""'
        # Ruff leaves a comment above the very first import where it is: begin with those without.
        imports = "\n".join(dict.fromkeys(self.needed + self.imports + self.typing))
        public = [name for name in self.defined if not name.startswith("_")]
        body = "\n\n\n".join(filter(None, self.body))
        return f"{docstring}\n\n{imports}\n\n__all__ = {public}\n\n\n{body}\n"


def read_book(chapters: Path, package: str) -> dict[str, Module]:
    """Read all chapters and sort their exported cells into modules."""
    cells: dict[str, list[Cell]] = {}
    for path in sorted(chapters.glob("*.ipynb")):
        for cell in read_chapter(path).cells:
            if cell.module is not None:
                cells.setdefault(cell.module, []).append(cell)
    modules = {name: Module(package, name, cells[name]) for name in sorted(cells)}

    owners: dict[str, Module] = {}
    for module in modules.values():
        if not module.defined:
            raise module.cells[0].refuse(f"nothing is exported to {module.full_name}")
        for name, cell in module.defined.items():
            if not name.startswith("_") and (owner := owners.setdefault(name, module)) != module:
                other = f"{owner.full_name} ({owner.defined[name].where})"
                raise cell.refuse(f'"{name}" would shadow the "{name}" of {other}')
    for module in modules.values():
        module.resolve(owners)
    return modules


def exports(chapters: Path, package: str = "s4lite") -> dict[tuple[str, str], Export]:
    """Where the book defines what it exports: (module, name) -> notebook, cell, section.

    Modules are named relative to the package, as in the directives: `ops.conv`.
    """
    return {
        (name, defined): Export(cell.chapter.path.stem, cell.index, cell.section)
        for name, module in read_book(Path(chapters), package).items()
        for defined, cell in module.defined.items()
    }


# ---------------------------------------------------------------- writing the package


def tidy(sources: dict[str, str], package: str) -> dict[str, str]:
    """Let ruff sort and prune imports, sort `__all__` and format; file -> source, both ways."""
    settings = ROOT / "pyproject.toml"
    if settings.is_file() and "[tool.ruff" in settings.read_text(encoding="utf-8"):
        config = ["--config", str(settings)]
    else:
        config = ["--isolated", "--config", f"line-length={WIDTH}"]
    config += ["--config", f"lint.isort.known-first-party=['{package}']", "--no-cache", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        for file, source in sources.items():
            path = Path(folder, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8", newline="\n")
        tidy_up = ["check", "--fix", "--exit-zero", "--select=I,F401,RUF022"]
        undefined = ["check", "--select=F811,F821", "--ignore-noqa", "--output-format=full"]
        for command in tidy_up, ["format"], undefined:
            ruff = [sys.executable, "-m", "ruff", *command, *config, "."]
            done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise ExportError(f"ruff {command[0]} failed:\n{done.stdout}{done.stderr}")
        return {file: Path(folder, file).read_text(encoding="utf-8") for file in sources}


def imports_in(tree: ast.AST, early: bool = True) -> Iterator[tuple[Import, bool]]:
    """All imports, and whether they run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Import):
            yield node, early
        else:
            late = isinstance(node, Function) or is_type_checking(node)
            yield from imports_in(node, early and not late)


def guarded_imports(tree: ast.Module) -> set[str]:
    """What a folder's `__init__.py` imports only to say, if it is missing, which extra brings it.

    It is a `try` with imports in it and one `except ModuleNotFoundError` that raises something.
    """
    tries = (node for node in tree.body if isinstance(node, ast.Try))
    guards = (
        node
        for node in tries
        if [ast.unparse(handler.type or node) for handler in node.handlers]
        == ["ModuleNotFoundError"]
        and any(isinstance(inner, ast.Raise) for inner in node.handlers[0].body)
    )
    imports = (inner for node in guards for inner in node.body if isinstance(inner, ast.Import))
    return {alias.name.partition(".")[0] for node in imports for alias in node.names}


def check_imports(sources: dict[str, str], package: str) -> None:
    """Refuse imports of a package, file -> source, that would fail or run in a circle."""
    folders = {".".join([package, *up.parts]) for file in sources for up in Path(file).parents}
    trees: dict[str, ast.Module] = {}
    for file, source in sources.items():
        module = ".".join([package, *Path(file).with_suffix("").parts])
        if module in folders:
            raise ExportError(f"{module} cannot be both a module and a package")
        trees[module.removesuffix(".__init__")] = ast.parse(source, file)
    known = {f"{name}.{bound}" for name, tree in trees.items() for bound in bound_names(tree)}
    known |= folders | trees.keys()

    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name, tree in trees.items():
        folder = ".".join(name.split(".")[:2])
        extras = guarded_imports(trees[folder]) if folder in folders & trees.keys() else set()
        allowed = DEPENDENCIES | extras & EXTRAS.get(folder.rpartition(".")[2], set())
        for node, early in imports_in(tree):
            refusal = f'{name} has "{ast.unparse(node)}"'
            if getattr(node, "level", 0):
                raise ExportError(f"{refusal}: write from {package}, without dots")
            origin = getattr(node, "module", None)
            for target in (f"{origin}.{each.name}" if origin else each.name for each in node.names):
                root = target.partition(".")[0]
                if root == package and target not in known:
                    raise ExportError(f"{refusal}, but there is no {target}")
                if early and root not in {package, *allowed, *sys.stdlib_module_names}:
                    advice = "import it in the function that needs it"
                    raise ExportError(f"{refusal}: {package} does not depend on {root}, {advice}")
                needed = target if target in trees else origin
                if early and needed in trees:
                    order.add(name, needed)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        circle = " imports ".join(reversed(error.args[1]))
        raise ExportError(f"a circle of imports: {circle}") from None


def is_ours(source: str) -> bool:
    """Was this module written here? Its docstring names its home, if so."""
    try:
        return bool(HOME.search(ast.get_docstring(ast.parse(source)) or ""))
    except SyntaxError:
        return False


def changes(chapters: Path, package: Path) -> dict[Path, tuple[str, str]]:
    """The files that are not what the chapters say: path -> (is, shall be); "" is no file."""
    modules = read_book(chapters, package.name)
    sources = {name.replace(".", "/") + ".py": built.render() for name, built in modules.items()}
    wanted = tidy(sources, package.name)
    found = {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
    }
    by_hand = {file: found.pop(file) for file in list(found) if Path(file).name in BY_HAND}
    check_imports(by_hand | wanted, package.name)
    for file in sorted(found.keys() - wanted.keys()):
        if not is_ours(found[file]):
            raise ExportError(f"{package.name}/{file} is of no chapter: export it, or remove it")
    return {
        package / file: (found.get(file, ""), wanted.get(file, ""))
        for file in sorted(found.keys() | wanted.keys())
        if found.get(file) != wanted.get(file)
    }


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if the package is in sync with the chapters at the end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="print a diff, write nothing")
    parser.add_argument("--chapters", type=Path, default=ROOT / "chapters", metavar="DIR")
    parser.add_argument("--package", type=Path, default=ROOT / "s4lite", metavar="DIR")
    options = parser.parse_args(argv)
    package = options.package.resolve()
    try:
        todo = changes(options.chapters.resolve(), package)
    except (ExportError, SyntaxError) as error:
        print(f"export refused: {error}", file=sys.stderr)
        return 1
    for path, (old, new) in todo.items():
        name = path.relative_to(package.parent).as_posix()
        if options.check:
            lines = [text.splitlines(keepends=True) for text in (old, new)]
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} (from chapters)"))
        elif new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new, encoding="utf-8", newline="\n")
            print(f"wrote {name}")
        else:
            path.unlink()
            print(f"removed {name}")
    if not todo:
        print(f"{package.name} is in sync with the chapters")
    return 1 if todo and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
