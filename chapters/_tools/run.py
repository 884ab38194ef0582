"""Execute the chapters and store their outputs, the same bytes every time.

    python chapters/_tools/run.py [NOTEBOOK ...] [-j N] [--measure]

Without arguments all chapters run. Each gets a fresh kernel of this very interpreter, in the
chapter's own folder, on one thread and with a fixed hash seed. A notebook whose cell raises is left
as it was, and the cell and its traceback are shown; the same if an output holds what another run or
machine would not repeat: the address of an object, a path of this machine.

Measured times differ from run to run. A cell that shows some starts with `# NBVAL_IGNORE_OUTPUT`;
its stored output stands until the code of this or an earlier cell changes, or `--measure` is given.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

CHAPTERS = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds that one cell may take
MEASURES = "# NBVAL_IGNORE_OUTPUT"  # the first line of a cell whose output may differ

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # with more, sums differ in the last digits
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "0",  # the date inside SVG and PDF figures
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}

# What no output may hold. Warnings name the kernel's process: ".../ipykernel_4711/123.py:1: ...".
HERE = {CHAPTERS.parent, Path.home(), Path(sys.prefix)}
LEAK = re.compile(
    "|".join([r"\b0x[0-9a-f]{8,}\b", r"ipykernel_\d+", *(re.escape(f"{path}/") for path in HERE)])
)

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunError(Exception):
    """A notebook that cannot be executed; the message shows the cell and its traceback."""


class ThisInterpreter(KernelSpecManager):
    """Knows one kernel, that of the running interpreter, whatever else is installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class Kernel(AsyncKernelManager):
    """A kernel manager that starts the running interpreter."""

    @default("kernel_spec_manager")
    def _this_interpreter(self) -> KernelSpecManager:
        return ThisInterpreter(parent=self)


def read(path: Path) -> NotebookNode:
    """Read a notebook; cells without an id get one made from the file's name and their place."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    for index, cell in enumerate(raw["cells"]):
        if "id" not in cell:  # before nbformat sees it, which would draw a random one
            cell["id"] = hashlib.sha256(f"{path.stem} {index}".encode()).hexdigest()[:8]
    raw["nbformat_minor"] = max(raw["nbformat_minor"], 5)
    return nbformat.reads(json.dumps(raw), as_version=4)


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join the text between two displays to one output per stream, stdout first.

    How the kernel cuts and interleaves its two streams is a matter of timing.
    """
    merged: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged += [streams[name] for name in sorted(streams, reverse=True)] + [output]
            streams = {}
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
    return merged + [streams[name] for name in sorted(streams, reverse=True)]


def check_outputs(path: Path, notebook: NotebookNode) -> None:
    """Raise unless the text of every output would be the same elsewhere."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = [output.get("text", ""), *output.get("traceback", [])]
            text += [data[kind] for kind in data if kind.startswith("text/")]
            for line in "\n".join(text).split("\n"):
                if LEAK.search(line):
                    raise RunError(
                        f"{path.name}, cell {number} shows what differs from run to run, or the "
                        f"paths of this machine:\n{ANSI.sub('', line)}"
                    )


def keep_measurements(notebook: NotebookNode, before: NotebookNode) -> None:
    """Put back the stored output of measuring cells, unless the code up to there has changed.

    The digest of that code is kept as `measured` in the cell's metadata.
    """
    code = hashlib.sha256()
    for cell, old in zip(notebook.cells, before.cells, strict=True):
        if cell.cell_type != "code":
            continue
        code.update(cell.source.encode())
        cell.metadata.pop("measured", None)
        if cell.source.startswith(MEASURES):
            cell.metadata["measured"] = code.hexdigest()[:12]
            if old.metadata.get("measured") == cell.metadata["measured"]:
                cell.outputs = old.outputs


def failure(path: Path, notebook: NotebookNode, error: Exception) -> str:
    """Say which cell failed, what it says, and how: in plain text."""
    if not isinstance(error, CellExecutionError):  # dead kernel, time-out
        return f"{path.name}: {ANSI.sub('', str(error))}"
    for number, cell in enumerate(notebook.cells, 1):  # the last one, should some raise by intent
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                where, source, trace = number, cell.source, "\n".join(output.traceback)
    rule = "-" * 72
    return f"{path.name}, cell {where} raised:\n{rule}\n{source}\n{rule}\n{ANSI.sub('', trace)}"


async def run(path: Path, measure: bool = False) -> None:
    """Execute one notebook and replace the file; on failure raise `RunError` and leave it."""
    notebook, before = read(path), read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as ipython:  # no start-up files, no shared history
        client = NotebookClient(
            notebook,
            kernel_manager_class=Kernel,
            kernel_name="python3",
            timeout=TIMEOUT,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            await client.async_execute(env=os.environ | ENVIRONMENT | {"IPYTHONDIR": ipython})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise RunError(failure(path, notebook, error)) from None

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    check_outputs(path, notebook)
    if not measure:
        keep_measurements(notebook, before)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    text = nbformat.writes(notebook).rstrip("\n") + "\n"

    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=".", delete=False
    ) as file:
        file.write(text)
    os.chmod(file.name, path.stat().st_mode)
    os.replace(file.name, path)


async def run_all(paths: list[Path], jobs: int, measure: bool) -> int:
    """Execute the notebooks, `jobs` at a time; return how many failed."""
    seats = asyncio.Semaphore(jobs)

    async def one(path: Path) -> bool:
        async with seats:
            start = time.perf_counter()
            try:
                await run(path, measure)
            except RunError as error:
                print(f"\n{error}\n{path.name} is left as it was.\n", file=sys.stderr, flush=True)
                return False
            print(f"{path.name}  {time.perf_counter() - start:.1f} s", flush=True)
            return True

    return (await asyncio.gather(*map(one, paths))).count(False)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if every notebook ran."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--measure", action="store_true", help="store newly measured times")
    options = parser.parse_args(argv)
    paths = [path.resolve() for path in options.notebooks] or sorted(CHAPTERS.glob("*.ipynb"))
    for path in paths:
        if not path.is_file():
            parser.error(f"{path.name}: no such notebook")
    return 1 if asyncio.run(run_all(paths, options.jobs, options.measure)) else 0


if __name__ == "__main__":
    sys.exit(main())
