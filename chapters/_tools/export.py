"""Write the package from the chapters.

    python chapters/_tools/export.py [--check] [--chapters DIR] [--package DIR]

The first lines of a code cell say where it goes (module names are relative to the package):

    #| default_exp ops.conv   the current module, from here on; the cell may hold its docstring
    #| export                 this cell goes to the current module
    #| export ops.conv        this cell goes to that module, whichever is the current one

A module is its docstring with its home chapters, the imports that it needs, a sorted `__all__`, and
its cells in the order of the book. Imports may stand in any code cell of the chapter. Whatever
would make the package differ from what the book shows is refused, with cell and name.

`--check` writes nothing: it prints what would change and exits 1, or says "in sync".

Every `.py` of the package is written here, except `__init__.py` and `__main__.py`. One that no
chapter exports is stale: removed if its docstring names a home chapter, as all modules from here
do, refused otherwise. So nothing made by hand is ever deleted.
"""

import argparse
import ast
import builtins
import difflib
import inspect
import json
import re
import subprocess
import symtable
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 100
BY_HAND = {"__init__.py", "__main__.py"}
BUILTINS = set(dir(builtins))

DUNDER = re.compile(r"__\w+__")  # names that Python itself puts into a module or a class
DIRECTIVE = re.compile(r"#\|\s*(\S*)\s*(.*?)\s*$")
MODULE_NAME = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)*")
FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(##?)\s+(.*?)(?:\s+#+)?\s*$", re.MULTILINE)
HOME = re.compile(r"^Home: .*\(\S+\.ipynb\)\.$", re.MULTILINE | re.DOTALL)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Import = ast.Import | ast.ImportFrom


class ExportError(Exception):
    """Something in a chapter that must not get into the package."""


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
    def imports(self) -> dict[str, list[tuple[str, str]]]:
        """Name -> (what it stands for, an import of it alone), from all cells."""
        found: dict[str, list[tuple[str, str]]] = {}
        for cell in self.cells:
            for node in cell.statements:
                for name, target, alone in imported_names(node):
                    found.setdefault(name, []).append((target, alone))
        return found

    @cached_property
    def definitions(self) -> dict[str, Cell]:
        """Name -> the first cell that defines it, exported or not."""
        found: dict[str, Cell] = {}
        for cell in self.cells:
            for node in cell.statements:
                for name in bound_names(node):
                    found.setdefault(name, cell)
        return found


# ---------------------------------------------------------------- reading the chapters


def read_chapter(path: Path) -> Chapter:
    """Read a notebook, follow its directives and parse its code."""
    chapter, section, default = Chapter(path), "", None
    for index, raw in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(raw["source"])
        if raw["cell_type"] == "markdown":
            for level, text in HEADING.findall(FENCED.sub("", source)):
                if level == "##":
                    section = text
                else:
                    chapter.title = chapter.title or text
        elif raw["cell_type"] == "code":
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
        in_head = in_head and (not line.strip() or line.startswith("#"))
        if not (found := DIRECTIVE.match(line)):
            continue
        directive, module = found.groups()
        if not in_head:
            raise cell.refuse(f'"{line}" must stand above the code')
        if directive not in ("export", "default_exp"):
            raise cell.refuse(f'unknown directive "{line}": there are default_exp and export')
        if (module or directive == "default_exp") and not MODULE_NAME.fullmatch(module):
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


def parse(cell: Cell) -> None:
    """Parse the cell's code. Only what is exported has to be plain Python."""
    source = cell.source
    if cell.module is None:  # leave out IPython's magics and shell lines
        source = re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)
    try:
        cell.statements = ast.parse(source).body
    except SyntaxError as error:
        if cell.module is not None:
            raise cell.refuse(f"syntax error in line {error.lineno}: {error.msg}") from None
    for node in cell.statements:
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            raise cell.refuse(f"from {node.module} import * hides which names are used")


# ---------------------------------------------------------------- names in a statement


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a definition or an assignment binds: those that can be exported."""
    if isinstance(node, Definition):
        overload = any(ast.unparse(d).endswith("overload") for d in node.decorator_list)
        return [] if overload else [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def bound_names(node: ast.stmt) -> set[str]:
    """All names that a statement binds in its module, however it does it, other than by import."""
    symbols = symtable.symtable(ast.unparse(node), "cell", "exec").get_symbols()
    return {each.get_name() for each in symbols if each.is_assigned() and not each.is_imported()}


def used_names(node: ast.AST) -> set[str]:
    """The names that a statement looks up in its module: no arguments, locals or attributes."""

    def walk(table: symtable.SymbolTable, outermost: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (outermost or symbol.is_global()):
                yield symbol.get_name()
        for inner in table.get_children():
            yield from walk(inner, False)

    return set(walk(symtable.symtable(ast.unparse(node), "cell", "exec"), True))


def imported_names(node: ast.stmt) -> Iterator[tuple[str, str, str]]:
    """For each name that an import binds: the name, what it stands for, an import of it alone."""
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


def is_type_checking(node: ast.stmt) -> bool:
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

    def __init__(self, full_name: str, cells: list[Cell]):
        self.full_name = full_name
        self.cells = cells
        self.uses = [
            (cell, node, used_names(node.test if isinstance(node, ast.If) else node))
            for cell in cells
            for node in cell.statements
            if not isinstance(node, Import)
        ]
        self.used = set().union(*(names for *_, names in self.uses))
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
        if isinstance(node, ast.If):  # its names may be used in strings: all are needed
            names = [each for inner in node.body for each in imported_names(inner)]
            self.typing.append(source)
        else:
            every = list(imported_names(node))
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
        for name in names:
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
                for target, alone in self.look_up(cell, node, name, owners):
                    self.bind(cell, name, target)
                    self.needed.append(alone)
            if isinstance(node, ast.Assign | ast.AnnAssign):
                self.check_constant(cell, node)
        for name in sorted(self.defined.keys() & self.imported.keys()):
            raise self.defined[name].refuse(f'"{name}" is imported too, as {self.imported[name]}')
        for chapter in {cell.chapter.path: cell.chapter for cell in self.cells}.values():
            for cell in chapter.cells:  # what code means depends on the future, used or not
                self.needed += [ast.unparse(node) for node in cell.statements if is_future(node)]

    def look_up(
        self, cell: Cell, node: ast.stmt, name: str, owners: dict[str, "Module"]
    ) -> list[tuple[str, str]]:
        """The imports that a name needs; refuse one that would not mean what it means in the book.

        The chapter's own definitions come first, then its imports, then what earlier chapters
        brought into the module, then builtins.
        """
        chapter = cell.chapter
        if name in self.defined and self.defined[name].chapter is chapter:
            return []
        imports = [each for each in chapter.imports.get(name, []) if not self.is_own(each[0])]
        if imports:
            return imports
        uses = f'"{next(iter(defined_names(node)), "the cell")}" uses "{name}"'
        known = name in self.defined or name in self.imported
        if not known and name in owners:
            origin = owners[name].full_name
            raise cell.refuse(f"{uses} without its import: from {origin} import {name}")
        if name in chapter.definitions:
            other = chapter.definitions[name].index + 1
            raise cell.refuse(f"{uses}, which cell {other} defines without exporting")
        if not (known or name in BUILTINS or DUNDER.fullmatch(name)):
            raise cell.refuse(f"{uses}, which is neither defined nor imported")
        return []

    def check_constant(self, cell: Cell, node: ast.Assign | ast.AnnAssign) -> None:
        """Refuse a constant that computes: it may call builtins and the standard library only."""
        for call in (inner for inner in ast.walk(node.value) if isinstance(inner, ast.Call)):
            root = call.func
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            if isinstance(root, ast.Name) and root.id not in BUILTINS:
                origin = self.imported.get(root.id, "").partition(".")[0]
                if origin not in sys.stdlib_module_names:
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
    modules = {name: Module(f"{package}.{name}", cells[name]) for name in sorted(cells)}

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
        for command in ["check", "--fix", "--exit-zero", "--select=I,F401,RUF022"], ["format"]:
            ruff = [sys.executable, "-m", "ruff", *command, *config, "."]
            done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise ExportError(f"ruff {command[0]} failed:\n{done.stdout}{done.stderr}")
        return {file: Path(folder, file).read_text(encoding="utf-8") for file in sources}


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
        if path.name not in BY_HAND
    }
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
    except ExportError as error:
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
