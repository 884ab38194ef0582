"""The execution of chapters: fresh, on one thread, the same bytes every time, all or nothing."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from run import main, merge_streams, read

V4 = nbformat.v4


def write(path: Path, *cells: str, **metadata) -> Path:
    """Write a notebook of code cells, as one that was never run."""
    notebook = V4.new_notebook(cells=[V4.new_code_cell(cell) for cell in cells], metadata=metadata)
    nbformat.write(notebook, path)
    return path


def outputs(path: Path) -> list[str]:
    """What each code cell printed or showed, as text; the file must be a valid notebook."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [
        "".join(o.get("text") or o["data"]["text/plain"] for o in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_two_runs_give_the_same_bytes_with_figures(tmp_path):
    path = write(
        tmp_path / "a.ipynb",
        "import matplotlib.pyplot as plt, numpy as np, sys, time\n"
        "from matplotlib_inline.backend_inline import set_matplotlib_formats\n"
        "set_matplotlib_formats('png', 'pdf')",
        "x = np.random.default_rng(0).normal(size=(500, 500)) @ np.ones((500, 500))\n"
        "_ = plt.plot(np.sort(x.ravel()))",
        "for i in range(9):\n"
        "    print(i, flush=True)\n"
        "    print('!', i, file=sys.stderr, flush=True)\n"
        "    time.sleep(0.01)",
        "{hash(c) for c in 'abcdefgh'}, float(x.sum()), {'a', 'b', 'c', 'd'}",
    )
    assert main([str(path)]) == 0
    first = path.read_bytes()
    figure = nbformat.read(path, as_version=4).cells[1].outputs[0]
    assert set(figure.data) >= {"image/png", "application/pdf"}
    assert main([str(path)]) == 0
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]


def test_the_stored_form(tmp_path):
    path = write(
        tmp_path / "a.ipynb",
        "1 + 1",
        kernelspec={"name": "other", "display_name": "My env", "language": "python"},
        language_info={"name": "python", "version": "3.1"},
        jupytext={"formats": "ipynb,md"},
        widgets={},
    )
    before = json.loads(path.read_text())
    assert main([str(path)]) == 0
    text = path.read_text()
    after = json.loads(text)
    assert after["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    (cell,) = after["cells"]
    assert cell["id"] == before["cells"][0]["id"]
    assert cell["execution_count"] == 1
    assert cell["metadata"] == {}  # no times
    assert text.endswith("}\n") and not text.endswith("\n\n")
    assert text == json.dumps(after, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_kernel_is_fresh_and_settled(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MPLBACKEND", "agg")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "habits.py").write_text("seen = True")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    path = write(
        tmp_path / "a.ipynb",
        "import os, sys\n"
        "for name in 'OMP_NUM_THREADS MKL_NUM_THREADS TQDM_DISABLE PYTHONHASHSEED'.split():\n"
        "    print(os.environ[name])",
        f"sys.executable == {sys.executable!r}, os.getcwd() == {str(tmp_path)!r}",
        "'seen' in globals()",
        "seen = True",
        "import matplotlib\nprint(matplotlib.get_backend())",
    )
    for _ in range(2):
        assert main([str(path)]) == 0
        threads, where, seen, _, backend = outputs(path)
        assert threads == "1\n1\n1\n0\n"
        assert where == "(True, True)"
        assert seen == "False"
        assert "inline" in backend


def test_a_failing_notebook_is_left_as_it_was(tmp_path, capsys):
    path = write(
        tmp_path / "bad.ipynb",
        "print('fine')",
        "def half(x):\n    raise ValueError('want an even number')\n\n\nhalf(3)",
        "print('never')",
    )
    before = path.read_bytes()
    good = write(tmp_path / "good.ipynb", "1")
    assert main([str(path), str(good)]) == 1
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.ipynb", "good.ipynb"]
    assert outputs(good) == ["1"]

    printed = capsys.readouterr()
    assert "bad.ipynb, cell 2 raised:" in printed.err
    assert "\ndef half(x):\n    raise ValueError('want an even number')\n" in printed.err
    assert "line 2, in half(x)" in printed.err
    assert "ValueError: want an even number" in printed.err
    assert "\x1b" not in printed.err
    assert "bad.ipynb is left as it was" in printed.err
    assert "never" not in printed.err and "bad" not in printed.out


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("object()", "object at 0x"),
        ("import sys\nprint(1)\nprint(sys.executable)", sys.executable),
        ("import warnings\nwarnings.warn('old')", "ipykernel_"),
    ],
)
def test_outputs_that_differ_elsewhere_are_refused(tmp_path, capsys, cell, shown):
    path = write(tmp_path / "a.ipynb", "1", cell)
    before = path.read_bytes()
    assert main([str(path)]) == 1
    message = capsys.readouterr().err
    assert "a.ipynb, cell 2 shows what differs" in message and shown in message
    assert path.read_bytes() == before


def test_a_missing_notebook_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.ipynb")])
    assert "none.ipynb: no such notebook" in capsys.readouterr().err


def test_a_dead_kernel_is_a_failure(tmp_path, capsys):
    path = write(tmp_path / "a.ipynb", "import os\nos._exit(3)")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert "a.ipynb: " in capsys.readouterr().err
    assert path.read_bytes() == before


def test_an_error_shown_on_purpose_is_none(tmp_path, capsys):
    stale = V4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=["stale"])
    raises = {"outputs": [stale], "metadata": {"tags": ["raises-exception"]}}
    notebook = V4.new_notebook(
        cells=[
            V4.new_code_cell("1 / 0", **raises),
            V4.new_code_cell("int('x')"),
            V4.new_code_cell("2 / 0", **raises),
        ]
    )
    path = tmp_path / "a.ipynb"
    nbformat.write(notebook, path)
    assert main([str(path)]) == 1
    message = capsys.readouterr().err
    assert "cell 2 raised" in message and "ZeroDivisionError" not in message
    del notebook.cells[1]
    nbformat.write(notebook, path)
    assert main([str(path)]) == 0
    assert "stale" not in path.read_text()


def test_nothing_stored_outlives_its_cell(tmp_path):
    path = write(tmp_path / "a.ipynb", "")
    notebook = read(path)
    notebook.cells[0].update(outputs=[V4.new_output("stream", text="old")], execution_count=7)
    nbformat.write(notebook, path)
    assert main([str(path)]) == 0
    (cell,) = read(path).cells
    assert (cell.outputs, cell.execution_count) == ([], None)


def test_notebooks_run_side_by_side(tmp_path):
    meet = (  # each waits for the other: one after the other, both would fail
        "import pathlib, time\n"
        "pathlib.Path('{0}').touch()\n"
        "until = time.monotonic() + 60\n"
        "while not pathlib.Path('{1}').exists():\n"
        "    assert time.monotonic() < until\n"
        "    time.sleep(0.05)"
    )
    a = write(tmp_path / "a.ipynb", meet.format("a", "b"))
    b = write(tmp_path / "b.ipynb", meet.format("b", "a"))
    assert main(["-j2", str(a), str(b)]) == 0


def test_missing_cell_ids_are_made_from_name_and_place(tmp_path):
    path = write(tmp_path / "a.ipynb", "1", "2")
    raw = json.loads(path.read_text())
    for cell in raw["cells"]:
        del cell["id"]
    raw["nbformat_minor"] = 4
    path.write_text(json.dumps(raw))
    first, second = (cell.id for cell in read(path).cells)
    assert first != second
    assert [cell.id for cell in read(path).cells] == [first, second]
    assert main([str(path)]) == 0
    assert [cell["id"] for cell in json.loads(path.read_text())["cells"]] == [first, second]


def test_text_between_displays_is_merged_by_stream():
    def said(name: str, text: str):
        return V4.new_output("stream", name=name, text=text)

    picture = V4.new_output("display_data", {"text/plain": "picture"})
    merged = merge_streams(
        [
            *(said("stderr", "a"), said("stdout", "b"), said("stderr", "c"), said("stdout", "d")),
            *(picture, said("stdout", "e"), said("stdout", "f")),
        ]
    )
    assert merged == [said("stdout", "bd"), said("stderr", "ac"), picture, said("stdout", "ef")]


TIMED = "# NBVAL_IGNORE_OUTPUT\nimport time\nprint(time.perf_counter_ns())"


def test_measurements_stand_until_asked_for_anew(tmp_path):
    path = write(tmp_path / "a.ipynb", "n = 1", TIMED, "n")
    assert main([str(path)]) == 0
    first = path.read_bytes()
    assert main([str(path)]) == 0
    assert path.read_bytes() == first
    assert main([str(path), "--measure"]) == 0
    assert path.read_bytes() != first


@pytest.mark.parametrize(
    ("old", "new", "stands"), [("n = 1", "n = 2", False), ("n + 1", "n + 2", True)]
)
def test_measurements_fall_with_the_code_up_to_them(tmp_path, old, new, stands):
    path = write(tmp_path / "a.ipynb", "n = 1", TIMED, "n + 1")
    assert main([str(path)]) == 0
    _, first, _ = outputs(path)
    path.write_text(path.read_text().replace(old, new))
    assert main([str(path)]) == 0
    _, second, _ = outputs(path)
    assert (second == first) is stands


def test_without_arguments_all_chapters_run(tmp_path, monkeypatch):
    for name in "ab":
        write(tmp_path / f"{name}.ipynb", f"'{name}'")
    monkeypatch.setattr("run.CHAPTERS", tmp_path)
    assert main([]) == 0
    assert outputs(tmp_path / "a.ipynb") == ["'a'"]
    assert outputs(tmp_path / "b.ipynb") == ["'b'"]
