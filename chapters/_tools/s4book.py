"""The Sphinx extension of this book: what Jupyter Book does not do by itself.

* MathJax and everything else comes from the site, nothing from elsewhere.
* Cells lose their `#|` lines; above an exported cell stands where it goes, with a link to the API.
* The API page lists the modules that exist; each entry links to the section that derives it.
* `eq-topic-name` in a docstring becomes a link to that equation, and the equation links back to the
  code; an equation that a cell with an `assert` names links to this check.
* Docstrings in the house form (Args and Returns as columns, Error, Source) become tables.
* Figures get their caption as alternative text.

Warnings, so that a build with `-W` fails: a marker for a module or name that the API page lacks, a
public name without a docstring or without a chapter that exports it, and a docstring that names an
equation which no chapter has.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import roles
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS.parents[1])]
import export  # noqa: E402

log = logging.getLogger(__name__)
ROOT = TOOLS.parents[1]
PACKAGE = "s4lite"
API = "chapters/api"
EQUATION = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*\b")
HIDDEN_LINE = re.compile(r"^\s*(#\||# NBVAL_)")
GROUPS = ["ops", "init", "nn"]  # the order on the API page; others follow by name


# ---------------- the package, read and not imported


@functools.cache
def modules() -> list[str]:
    """Names of the modules of the package that have something public, in reading order."""
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name != "__init__.py" and not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    homes = {module: i for i, module in enumerate(_export_order())}

    def key(module):
        group = module.split(".")[1]
        return (
            GROUPS.index(group) if group in GROUPS else len(GROUPS),
            homes.get(module, len(homes)),
            module,
        )

    return sorted(found, key=key)


def _export_order() -> list[str]:
    order = []
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        for _, module, _ in exported_cells(path):
            if module not in order:
                order.append(module)
    return order


def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf8"))


def public(module: str) -> list[str]:
    """The public functions and classes that a module defines, in the order of the source."""
    return [
        name.rsplit(".", 1)[1]
        for name, _ in definitions(module)
        if name.rsplit(".", 1)[0] == module
    ]


@functools.cache
def definitions(module: str) -> list[tuple[str, ast.AST]]:
    """Full name and node of every public function, class and method of a module."""
    found = []
    for definition in _tree(module).body:
        if isinstance(
            definition, ast.FunctionDef | ast.ClassDef
        ) and not definition.name.startswith("_"):
            name = f"{module}.{definition.name}"
            found.append((name, definition))
            if isinstance(definition, ast.ClassDef):
                methods = [
                    m
                    for m in definition.body
                    if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")
                ]
                found += [(f"{name}.{m.name}", m) for m in methods]
    return found


@functools.cache
def citations() -> dict[str, list[str]]:
    """Equation label -> full names of what is public and names it in its docstring."""
    cited: dict[str, list[str]] = {}
    for module in modules():
        for name, definition in definitions(module):
            for label in EQUATION.findall(ast.get_docstring(definition) or ""):
                if name not in cited.setdefault(label, []):
                    cited[label].append(name)
    return cited


@functools.cache
def exported_cells(path: Path) -> list[tuple[int, str, list[str]]]:
    """(cell index, module, functions and classes) of every exported cell of a notebook."""
    try:
        cells = export.read_chapter(path).cells
    except export.ExportError as error:
        log.warning("%s", error)
        return []
    found = []
    for cell in cells:
        if cell.module is None or not [s for s in cell.statements if not export.is_docstring(s)]:
            continue
        names = [s.name for s in cell.statements if isinstance(s, export.Definition)]
        found.append((cell.index, f"{PACKAGE}.{cell.module}", names))
    return found


# ---------------- the API page


def api_text() -> str:
    """MyST text for the API page: an overview, then one automodule a module."""
    names = {module: public(module) for module in modules()}
    rows = [
        f"* - [`{m.removeprefix(PACKAGE + '.')}`](#module-{m})\n  - "
        + ", ".join(_link(f"{m}.{n}") for n in names[m])
        for m in names
    ]
    top = _top_level(names)
    text = []
    if top:
        text.append(
            f"`from {PACKAGE} import ...` offers "
            + ", ".join(_link(name) for name in top)
            + ". Everything else lives in its module:\n"
        )
    text.append(
        ":::{list-table}\n:class: s4-modules\n:widths: auto\n\n" + "\n".join(rows) + "\n:::\n"
    )
    for module in names:
        text.append(f"(module-{module})=\n## {module.removeprefix(PACKAGE + '.')}\n")
        text.append(f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n")
    return "\n".join(text)


def _link(name: str) -> str:
    return f"{{py:obj}}`~{name}`"


def _top_level(names: dict[str, list[str]]) -> list[str]:
    """What `from package import ...` offers, by full name; torch is not imported for this."""
    homes = {name: module for module in names for name in names[module]}
    source = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf8")
    offered = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return [f"{homes[name]}.{name}" for name in sorted(offered) if name in homes]


def source_read(app, docname, source):
    if docname == API:
        text = app.env.s4_api_text = _safe_api_text()
        source[0] = source[0].replace(":::{s4lite-api}\n:::", text)


def _safe_api_text() -> str:
    if not (ROOT / PACKAGE).is_dir():
        log.warning("there is no package %s to document", PACKAGE)
        return ""
    return api_text()


def get_outdated(app, env, added, changed, removed):
    stale = API in env.all_docs and getattr(env, "s4_api_text", None) != _safe_api_text()
    return [API] if stale else []


def check_documented(app, env):
    """Every public function, class and method has a docstring."""
    for module in modules():
        for name, definition in definitions(module):
            if not ast.get_docstring(definition):
                log.warning("%s is public and has no docstring", name)


# ---------------- docstrings in the house form

COLUMNS = re.compile(r"^(Args|Returns|Raises|Attributes|Parameters|State|Buffers|Yields):\s*$")
REMARK = re.compile(r"^([A-Z][A-Za-z]*(?: [a-z]+)?):\s+(\S.*)$")
TOKEN = re.compile(r"(``.+?``|`[^`]+`|(?<![\\\w])\$[^$\n]+\$|" + EQUATION.pattern + ")")
SHAPE = re.compile(
    r"^(\(.*\)|any\b.*|int|float|bool|str|scalar|Tensor|None|callable|like .*|same\b.*|.* or None)"
    r"(,.*)?$"
)


def inline(text: str) -> str:
    """Docstring text as RST: `code`, $math$ and equation labels mean something."""
    out = []
    for i, part in enumerate(TOKEN.split(text)):
        if i % 2 == 0:
            out.append(re.sub(r"([\\*`|_])", r"\\\1", part))
        elif part.startswith("`"):
            out.append(f"\\ ``{part.strip('`')}``\\ ")
        elif part.startswith("$"):
            out.append(f"\\ :math:`{part.strip('$')}`\\ ")
        else:
            out.append(f"\\ :s4eq:`{part}`\\ ")
    return "".join(out).replace("\\ \\ ", "\\ ")


def split_row(line: str) -> tuple[str, str, str, str]:
    """A line of columns as (name, shape, meaning, [unit])."""
    cells = re.split(r"\s{2,}", line.strip())
    unit = cells.pop() if len(cells) > 1 and re.fullmatch(r"\[.*\]", cells[-1]) else ""
    if len(cells) == 1 and re.match(r"^[\w., *]+:\s", line.strip()):
        name, meaning = line.strip().split(":", 1)
        return name, "", meaning.strip(), unit
    name, *rest = cells
    shape = rest.pop(0) if rest and (len(rest) > 1 or SHAPE.match(rest[0])) else ""
    return name, shape, "  ".join(rest), unit


def table(head: str, block: list[str]) -> list[str]:
    indent = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
    rows: list[list[str]] = []
    for line in block:
        if not line.strip():
            continue
        if rows and len(line) - len(line.lstrip()) > indent:  # the meaning goes on
            text = re.sub(r"\s{2,}", " ", line.strip())
            unit = (
                re.search(r"\s*(\[[^\]]*\])$", text)
                if not rows[-1][3] and re.search(r"\s{2,}\[[^\]]*\]$", line)
                else None
            )
            if unit:
                rows[-1][3], text = unit.group(1), text[: unit.start()]
            rows[-1][2] = f"{rows[-1][2]} {text}".strip()
        else:
            rows.append(list(split_row(line)))
    wide = any(row[1] for row in rows)
    out = [f":s4head:`{head}`", "", ".. list-table::", "   :class: s4-args", "   :widths: auto", ""]
    for name, shape, meaning, unit in rows:
        cells = [f"``{name}``"] + ([f"``{_unbroken(shape)}``" if shape else ""] if wide else [])
        cells.append((inline(meaning) + (f" :s4unit:`{unit}`" if unit else "")).strip())
        out += [f"   {'* -' if i == 0 else '  -'} {cell}".rstrip() for i, cell in enumerate(cells)]
    return [*out, ""]


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}") if len(text) <= 20 else text


def rst_docstring(lines: list[str]) -> list[str]:
    out: list[str] = []
    i, literal = 0, False
    while i < len(lines):
        line = lines[i]
        heading = COLUMNS.match(line)
        remark = REMARK.match(line)
        indented = line.startswith("    ")
        if heading:
            block = []
            i += 1
            while i < len(lines) and (not lines[i].strip() or lines[i].startswith(" ")):
                block.append(lines[i])
                i += 1
            out += ["", *table(heading.group(1), block)]
            continue
        if line == "\b":  # lines that a command line shows as they are, up to a blank one
            i += 1
            block = []
            while i < len(lines) and lines[i].strip():
                block.append("    " + lines[i])
                i += 1
            out += ["", "::", "", *block, ""]
            continue
        if line.startswith(">>>"):  # a doctest block ends at a blank line
            while i < len(lines) and lines[i].strip():
                out.append(lines[i])
                i += 1
            continue
        if indented and not literal and (not out or not out[-1].strip()):
            out += ["::", ""]
            literal = True
        if line.strip() and not indented:
            literal = False
        if literal:
            out.append(line)
        elif remark and (
            i == 0 or remark.group(1) in ("Error", "Source", "Cost", "Note", "Example")
        ):
            text = [remark.group(2)]
            while i + 1 < len(lines) and lines[i + 1].startswith(" ") and lines[i + 1].strip():
                i += 1
                text.append(lines[i].strip())
            if i == 0:
                out.append(inline(line))
            else:
                out += ["", f":s4head:`{remark.group(1)}` {inline(' '.join(text))}", ""]
        elif re.match(r"^\s*[-*]\s", line):
            mark = re.match(r"^\s*[-*]\s", line).group()
            if out and out[-1].strip() and not re.match(r"^\s*[-*]\s", out[-1]):
                out.append("")
            out.append(mark + inline(line[len(mark) :]))
        else:
            out.append(inline(line))
        i += 1
    return out


HOME = re.compile(r'(?:chapter \d+, )?"([^"]+)" \((chapters/\S+)\.ipynb\)')


def process_docstring(app, what, name, obj, options, lines):
    if what == "module":  # "Home: chapter 03, "Discretization" (chapters/03_discretization.ipynb)."
        at = next((i for i, line in enumerate(lines) if line.startswith("Home: ")), len(lines))
        homes = HOME.findall(" ".join(line.strip() for line in lines[at:]))
        links = ", ".join(f":doc:`{title} </{page}>`" for title, page in homes)
        lines[:] = rst_docstring(lines[:at]) + (
            ["", f"Derived in {links}.", ""] if homes else rst_docstring(lines[at:])
        )
    else:
        lines[:] = rst_docstring(lines)


ANNOTATED = re.compile(r"~?typing\.Annotated\[(.+?), <[^<>]* object at 0x[0-9a-f]+>\]")
LONG_BYTES = re.compile(r"b'([^'\\]|\\.){40,}'")


def process_signature(app, what, name, obj, options, signature, returned):
    """Types without what a command line adds to them, and no default longer than a line."""
    if signature:
        signature = LONG_BYTES.sub("b'...'", ANNOTATED.sub(r"\1", signature))
    return signature, returned


def equation_role(role, rawtext, text, lineno, inliner, options=None, content=None):
    return [s4_equation(text, label=text)], []


def class_role(role, rawtext, text, lineno, inliner, options=None, content=None):
    return [nodes.inline(text, text, classes=[role.replace("s4", "s4-")])], []


class StraightQuotes(SphinxTransform):
    """x' = Ax + Bu is no apostrophe: docstrings keep their quotes straight."""

    default_priority = 700

    def apply(self, **kwargs):
        for content in self.document.findall(addnodes.desc_content):
            for text in content.findall(nodes.Text):
                text.parent["support_smartquotes"] = False


class s4_equation(nodes.Inline, nodes.TextElement):
    """A place for the link to an equation; filled once every chapter is read."""


# ---------------- chapters as they are read


def doctree_read(app, doctree):
    env = app.env
    path = Path(env.doc2path(env.docname))
    if path.suffix != ".ipynb":
        return
    exports = {index: (module, names) for index, module, names in exported_cells(path)}
    sources = json.loads(path.read_text(encoding="utf8"))["cells"]
    for cell in list(doctree.findall(_is("cell_code"))):
        index = cell["cell_index"]
        source = "".join(sources[index]["source"])
        describe_outputs(cell, sources[index].get("outputs", []))
        before = []
        labels = EQUATION.findall(source)
        if labels and "assert" in source and index not in exports:
            anchor = f"check-{index}"
            before.append(nodes.target("", "", ids=[anchor]))
            for label in labels:
                env.s4_checks.setdefault(label, (env.docname, anchor))
        if index in exports:
            module, names = exports[index]
            before.append(marker(module, names))
            cell["classes"].append("s4-exported")
            section = cell.parent
            while not isinstance(section, nodes.section):
                section = section.parent
            title = (
                []
                if isinstance(section.parent, nodes.document)
                else [c.deepcopy() for c in section[0].children]
            )
            for name in names:
                env.s4_homes[f"{module}.{name}"] = (env.docname, section["ids"][0], title)
        if not strip(cell):
            cell.parent.remove(cell)
        elif before:
            at = cell.parent.index(cell)
            cell.parent[at:at] = before


def _is(element: str):
    return lambda node: isinstance(node, nodes.container) and node.get("nb_element") == element


def strip(cell) -> bool:
    """Take the lines meant for tools out of a cell; False if nothing is left to show."""
    for block in cell.findall(nodes.literal_block):
        if "cell_input" not in block.parent.get("classes", []):
            continue
        lines = block.astext().split("\n")
        kept = [line for line in lines if not HIDDEN_LINE.match(line)]
        if len(kept) == len(lines):
            continue
        text = "\n".join(kept).strip("\n")
        try:
            body = ast.parse(text).body
        except SyntaxError:
            body = [None]
        docstring = (
            len(body) == 1
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        )
        if not text or not body or docstring:
            return False
        block.rawsource = text
        block.children = []
        block += nodes.Text(text)
    return True


def marker(module: str, names: list[str]) -> nodes.paragraph:
    """exported to `s4lite/ops/discretize.py`, linked to the API page."""
    shown = next((name for name in names if not name.startswith("_")), None)
    target, kind = (f"{module}.{shown}", "obj") if shown else (module, "mod")
    link = addnodes.pending_xref(
        "", refdomain="py", reftype=kind, reftarget=target, refexplicit=True, refwarn=True,
    )  # fmt: skip
    link += nodes.literal("", module.replace(".", "/") + ".py", classes=["s4-file"])
    return nodes.paragraph("", "exported to ", link, classes=["s4-export"])


def describe_outputs(cell, outputs: list[dict]) -> None:
    """A picture's text is its alternative; markdown below it, or a slider, is its caption."""
    kinds = [
        o.get("metadata", {}).get("image/png", {})
        for o in outputs
        if "image/png" in o.get("data", {})
    ]
    above = False
    for bundle in cell.findall(_is("mime_bundle")):
        forms = {child["mime_type"]: child for child in bundle.children}
        plain = forms["text/plain"].astext() if "text/plain" in forms else ""
        if "image/png" in forms:
            drawing = kinds.pop(0).get("drawing", False) if kinds else False
            for image in forms["image/png"].findall(nodes.image):
                image["alt"] = (
                    "figure" if plain.startswith("<") or not plain else " ".join(plain.split())
                )
                image["classes"] += ["s4-drawing"] if drawing else []
        if "text/markdown" in forms and above:
            for paragraph in forms["text/markdown"].findall(nodes.paragraph):
                paragraph["classes"].append("s4-caption")
        html = forms["text/html"].astext() if "text/html" in forms else ""
        above = "image/png" in forms or "s4-slider" in html


def purge(app, env, docname):
    _ready(env)
    env.s4_homes = {k: v for k, v in env.s4_homes.items() if v[0] != docname}
    env.s4_checks = {k: v for k, v in env.s4_checks.items() if v[0] != docname}


def merge(app, env, docnames, other):
    _ready(env)
    env.s4_homes.update({k: v for k, v in other.s4_homes.items() if v[0] in docnames})
    env.s4_checks.update({k: v for k, v in other.s4_checks.items() if v[0] in docnames})


def _ready(env):
    for name in ("s4_homes", "s4_checks"):
        if not hasattr(env, name):
            setattr(env, name, {})


def env_updated(app, env):
    """Links cross pages both ways: when any end moved, write all pages that carry one."""
    homes = {
        name: (doc, anchor, "".join(map(str, title)))
        for name, (doc, anchor, title) in env.s4_homes.items()
    }
    equations = dict(env.get_domain("math").equations)
    state = repr(
        (
            sorted(homes.items()),
            sorted(env.s4_checks.items()),
            sorted(equations.items()),
            sorted(citations().items()),
        )
    )
    if getattr(env, "s4_state", None) == state:
        return []
    env.s4_state = state
    return [doc for doc in env.all_docs if doc == API or env.doc2path(doc).endswith(".ipynb")]


def restore_numbers(app, env):
    """Give the collector back the numbers that it gave, so that it sees what really changed."""
    env.toc_fignumbers = getattr(env, "s4_numbers", env.toc_fignumbers)
    return []


def number_by_page(app, env):
    """Theorems, exercises and figures count from 1 on each page, as equations do."""
    env.s4_numbers = env.toc_fignumbers
    env.toc_fignumbers = {
        doc: {
            kind: {name: (i + 1,) for i, name in enumerate(sorted(ids, key=ids.get))}
            for kind, ids in kinds.items()
        }
        for doc, kinds in env.s4_numbers.items()
    }
    return []


# ---------------- pages as they are written


def doctree_resolved(app, doctree, docname):
    for node in list(doctree.findall(s4_equation)):
        node.replace_self(equation_link(app, docname, node["label"], node))
    foreign_equations(app, doctree, docname)
    if docname == API:
        link_homes(app, doctree, docname)
    cited = citations() if next(iter(doctree.findall(nodes.math_block)), None) is not None else {}
    for block in list(doctree.findall(nodes.math_block)):
        note = equation_note(app, docname, block.get("label"), cited)
        if note:
            block.parent.insert(block.parent.index(block) + 1, note)


def _uri(app, source: str, target: str, anchor: str) -> str:
    return ("" if source == target else app.builder.get_relative_uri(source, target)) + f"#{anchor}"


def _reference(
    app, source: str, target: str, anchor: str, *children, **attributes
) -> nodes.reference:
    return nodes.reference(
        "", "", *children, internal=True, refuri=_uri(app, source, target, anchor), **attributes
    )


def equation_link(app, docname: str, label: str, node) -> nodes.Node:
    found = app.env.get_domain("math").equations.get(label)
    if not found:
        log.warning("a docstring names the equation %r, which no chapter has", label, location=node)
        return nodes.literal("", label)
    home, number = found
    text = f"{app.env.titles[home].astext()} ({number})"
    return _reference(
        app, docname, home, f"equation-{nodes.make_id(label)}", nodes.Text(text), reftitle=label
    )


def foreign_equations(app, doctree, docname) -> None:
    """Equations count from (1) on each page: elsewhere they are Discretization (3)."""
    homes = {
        f"equation-{nodes.make_id(label)}": home
        for label, (home, _) in app.env.get_domain("math").equations.items()
    }
    for link in doctree.findall(nodes.reference):
        home = homes.get(link.get("refuri", "").partition("#")[2])
        number = link.astext()
        if link.get("internal") and home and home != docname and re.fullmatch(r"\(\d+\)", number):
            link.children = []
            link += nodes.Text(f"{app.env.titles[home].astext()} {number}")


def equation_note(app, docname: str, label: str | None, cited: dict) -> nodes.paragraph | None:
    """Below an equation: the functions that compute it, and the cell that checks it."""
    names, check = cited.get(label, []), app.env.s4_checks.get(label)
    if not names and not check:
        return None
    note = nodes.paragraph("", "", classes=["s4-code"])
    for i, name in enumerate(names):
        note += nodes.Text(", " if i else "code: ")
        *_, owner, last = name.split(".")
        shown = f"{owner}.{last}" if owner[0].isupper() else last
        note += _reference(app, docname, API, name, nodes.literal("", shown))
    if check:
        if names:
            note += nodes.Text(" · ")
        note += _reference(app, docname, *check, nodes.Text("checked by machine"))
    return note


def link_homes(app, doctree, docname) -> None:
    """Each entry of the API page: Derived in: Discretization › The trapezoid rule."""
    for entry in doctree.findall(addnodes.desc):
        ids = [i for sig in entry.findall(addnodes.desc_signature) for i in sig["ids"]]
        home = next((app.env.s4_homes[i] for i in ids if i in app.env.s4_homes), None)
        if home is None:
            if entry["objtype"] in ("function", "class"):
                log.warning("no chapter exports %s", ", ".join(ids), location=entry)
            continue
        doc, anchor, title = home
        text = [nodes.Text(app.env.titles[doc].astext())]
        if title:
            text += [nodes.Text(" › "), *(child.deepcopy() for child in title)]
        content = next(entry.findall(addnodes.desc_content))
        content.insert(
            0,
            nodes.paragraph(
                "",
                "Derived in: ",
                _reference(app, docname, doc, anchor, *text),
                classes=["s4-home"],
            ),
        )


# ---------------- the site's own files


def config_inited(app, config):
    config.mathjax_path = "mathjax/tex-chtml-full.js"
    config.html_static_path = [*config.html_static_path, str(TOOLS.parent / "_static")]
    ours = [Path(__file__), *sorted((TOOLS.parent / "_static").rglob("*.*"))]
    config.s4book_source = hashlib.sha256(b"".join(path.read_bytes() for path in ours)).hexdigest()


def copy_mathjax(app, error):
    if error is not None or app.builder.format != "html":
        return
    origin = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    fonts = sorted(
        p.relative_to(origin) for p in (origin / "output/chtml/fonts/woff-v2").glob("*.woff")
    )
    for name in [Path("tex-chtml-full.js"), *fonts]:
        if not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, target / name)


def leave_no_trace(app, error):
    """Take away pages that are no more; after a warning under -W start afresh, to warn again."""
    out = Path(app.outdir)
    if app.builder.format == "html" and error is None:
        wanted = {f"{doc}.html" for doc in app.env.all_docs}
        wanted |= {"_modules/index.html"} | {
            f"_modules/{module.replace('.', '/')}.html" for module in modules()
        }
        for page in [*(out / "chapters").rglob("*.html"), *(out / "_modules").rglob("*.html")]:
            if page.relative_to(out).as_posix() not in wanted:
                page.unlink()
    if error is not None or (app._warncount and (app.warningiserror or app.keep_going)):
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def page_context(app, pagename, templatename, context, doctree):
    """Drop scripts that come twice, and those that would load a kernel from elsewhere."""
    kept, seen = [], set()
    for script in context.get("script_files", []):
        key = (str(script.filename or ""), str(script.attributes.get("body", "")))
        if key in seen or "thebe" in "".join(key).lower():
            continue
        seen.add(key)
        kept.append(script)
    context["script_files"] = kept
    context["css_files"] = [
        c for c in context.get("css_files", []) if "thebe" not in str(c.filename or "")
    ]


def _pass(self, node):
    pass


def setup(app):
    app.add_config_value("s4book_source", "", "env")
    app.add_css_file("s4book.css")
    app.add_js_file("s4book.js", loading_method="defer")
    app.add_node(s4_equation, html=(_pass, _pass))
    roles.register_local_role("s4eq", equation_role)
    roles.register_local_role("s4unit", class_role)
    roles.register_local_role("s4head", class_role)
    app.add_transform(StraightQuotes)
    app.connect("config-inited", config_inited, priority=400)
    app.connect("builder-inited", lambda app: _ready(app.env))
    app.connect("env-get-outdated", get_outdated)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("source-read", source_read)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("doctree-read", doctree_read)
    app.connect("env-updated", env_updated)
    app.connect("env-get-updated", restore_numbers, priority=100)
    app.connect("env-get-updated", number_by_page, priority=900)
    app.connect("env-check-consistency", check_documented)
    app.connect("doctree-resolved", doctree_resolved)
    app.connect("html-page-context", page_context, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", leave_no_trace)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
