"""What the site makes of docstrings, cells and outputs."""

import textwrap

import docutils.core
import docutils.nodes as nodes
import pytest
import s4book

HOUSE = """\
Discretize x' = Ax + Bu, |Ab| <= 1, by `bilinear`: see $x_k$ and _private, *stars*.

Args:
    A   (..., N, N)  state matrix    [1/time]
    B   (..., N, P)  input matrix, which
                     goes on         [state/(input time)]
    dt  float or (...)  step, > 0
    z   any shape, complex
Returns:
    Ab  (..., N, N)  solves (I - dt/2 A) Ab = I + dt/2 A
Raises:
    ValueError: if A is not square.

Error:  (dt A)^3 / 12.
Source: Gu et al. 2022 (S4), eq. (3);
    our eq-discretize-bilinear and eq-discretize-step.
"""


@pytest.fixture(scope="module")
def tree():
    """The house docstring as docutils reads it; any complaint of docutils is an error."""
    for role, make in [
        ("s4eq", s4book.equation_role),
        ("s4unit", s4book.class_role),
        ("s4head", s4book.class_role),
    ]:
        s4book.roles.register_local_role(role, make)
    text = "\n".join(s4book.rst_docstring(HOUSE.split("\n")))
    return docutils.core.publish_doctree(text, settings_overrides={"halt_level": 2})


def rows(tree) -> list[list[str]]:
    return [
        [entry.astext() for entry in row.findall(nodes.entry)] for row in tree.findall(nodes.row)
    ]


def test_columns_become_tables(tree):
    assert [n.astext() for n in tree.findall(nodes.inline) if "s4-head" in n["classes"]] == [
        "Args",
        "Returns",
        "Raises",
        "Error",
        "Source",
    ]
    shape = "(..., N, N)".replace(" ", "\N{NO-BREAK SPACE}")
    assert rows(tree)[0] == ["A", shape, "state matrix [1/time]"]
    assert rows(tree)[1][2] == "input matrix, which goes on [state/(input time)]"
    assert [row[0] for row in rows(tree)] == ["A", "B", "dt", "z", "Ab", "ValueError"]
    assert rows(tree)[5] == ["ValueError", "if A is not square."]


def test_units_stand_apart(tree):
    units = [n.astext() for n in tree.findall(nodes.inline) if "s4-unit" in n["classes"]]
    assert units == ["[1/time]", "[state/(input time)]"]


def test_text_is_text_and_mathematics_is_mathematics(tree):
    first = next(tree.findall(nodes.paragraph))
    assert [n.astext() for n in first.findall(nodes.math)] == ["x_k"]
    assert [n.astext() for n in first.findall(nodes.literal)] == ["bilinear"]
    assert "x' = Ax + Bu, |Ab| <= 1" in first.astext()
    assert "_private, *stars*" in first.astext()


def test_equation_labels_become_links(tree):
    labels = [n["label"] for n in tree.findall(s4book.s4_equation)]
    assert labels == ["eq-discretize-bilinear", "eq-discretize-step"]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("A   (..., N)  poles  [1/time]", ("A", "(..., N)", "poles", "[1/time]")),
        ("L   int       length, >= 1", ("L", "int", "length, >= 1", "")),
        ("x   the state after u", ("x", "", "the state after u", "")),
        ("K   (L,)", ("K", "(L,)", "", "")),
        ("TypeError, ValueError: if so", ("TypeError, ValueError", "", "if so", "")),
    ],
)
def test_a_row_is_name_shape_meaning_unit(line, row):
    assert s4book.split_row(line) == row


def cell(source: str) -> nodes.container:
    block = nodes.literal_block(source, source)
    return nodes.container("", nodes.container("", block, classes=["cell_input"]))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("#| export\ndef f():\n    return 1", "def f():\n    return 1"),
        ("# NBVAL_IGNORE_OUTPUT\nprint(1)", "print(1)"),
        ("x = 1  # a comment", "x = 1  # a comment"),
        ("%timeit 1", "%timeit 1"),
        ('#| default_exp ops.conv\n"""A docstring."""', None),
        ("#| default_exp ops.conv", None),
    ],
)
def test_lines_for_tools_are_not_shown(source, shown):
    made = cell(source)
    assert s4book.strip(made) is (shown is not None)
    if shown is not None:
        block = next(made.findall(nodes.literal_block))
        assert block.astext() == block.rawsource == shown


def test_marker_links_to_the_entry_and_must_resolve():
    link = next(
        s4book.marker("s4lite.ops.conv", ["_pad", "conv"]).findall(s4book.addnodes.pending_xref)
    )
    assert (link["reftarget"], link["refwarn"]) == ("s4lite.ops.conv.conv", True)
    assert link.astext() == "s4lite/ops/conv.py"
    private = next(s4book.marker("s4lite.ops.conv", ["_pad"]).findall(s4book.addnodes.pending_xref))
    assert (private["reftype"], private["reftarget"]) == ("mod", "s4lite.ops.conv")


def test_exercises_count_from_one_on_each_page():
    class Env:
        toc_fignumbers = {  # noqa: RUF012
            "a": {"exercise": {"x": (1,), "y": (2,)}},
            "b": {"exercise": {"w": (4,), "z": (3,)}, "figure": {"f": (1,)}},
        }

    env = Env()
    before = env.toc_fignumbers
    s4book.number_by_page(None, env)
    assert env.toc_fignumbers["b"] == {"exercise": {"z": (1,), "w": (2,)}, "figure": {"f": (1,)}}
    s4book.restore_numbers(None, env)
    assert env.toc_fignumbers == before


def test_literal_blocks_and_lists_survive():
    text = textwrap.dedent("""\
        A line.

        * one *x*
        * two

            code = 1
        """)
    tree = docutils.core.publish_doctree("\n".join(s4book.rst_docstring(text.split("\n"))))
    assert next(n.astext() for n in tree.findall(nodes.list_item)) == "one *x*"
    assert next(tree.findall(nodes.literal_block)).astext() == "code = 1"


def test_examples_of_a_command_stay_as_they_are():
    text = (
        "Do it.\n\n\b\nExamples:\n  s4lite train smnist --set lr=.004\n  s4lite list\n\nAnd more."
    )
    tree = docutils.core.publish_doctree("\n".join(s4book.rst_docstring(text.split("\n"))))
    block = next(tree.findall(nodes.literal_block)).astext()
    assert block == "Examples:\n  s4lite train smnist --set lr=.004\n  s4lite list"
    assert [p.astext() for p in tree.findall(nodes.paragraph)] == ["Do it.", "And more."]
    assert not list(tree.findall(nodes.system_message))


def test_signatures_say_types_and_nothing_else():
    odd = "<typer.models.OptionInfo object at 0x7ff526b839d0>"
    every = repr(bytes(range(256)))
    told = f"(a: ~typing.Annotated[list[str] | None, {odd}] = None, b: bytes = {every}, c=b'ab')"
    want = "(a: list[str] | None = None, b: bytes = b'...', c=b'ab')"
    assert s4book.process_signature(*[None] * 5, told, "int") == (want, "int")
    assert s4book.process_signature(*[None] * 5, None, None) == (None, None)
