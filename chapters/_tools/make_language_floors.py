"""Make chapters/data/language_floors.json out of the published texts.

    python chapters/_tools/make_language_floors.py DATA_DIR [-o FOLDER]

DATA_DIR holds enwik8, tinyshakespeare/input.txt and wikitext-2; see s4lite.data.corpora. Of each
text the parts that the recipe's tiny size trains on and is tested on, no more and no less. If one
is missing or damaged, nothing is written. Nothing is trained: counting and compressing have no
settings; so nobody needs to run this, it is here to say exactly what was done.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import numpy as np

from s4lite.data.counts import grams, text_floors
from s4lite.data.files import DamagedData, MissingData, atomic_write
from s4lite.recipes.catalogue import recipe
from s4lite.recipes.parts import task_for

FILE = "language_floors.json"
HERE = Path(__file__).resolve().parent.parent / "data"
SIZE = "tiny"
# The longest contexts that are counted: higher orders score worse, or do not fit in 64 bits.
ORDERS = {"enwik8": 7, "tiny-shakespeare": 8, "wikitext2": 3}
DIGITS = 4


def of(folder: Path, name: str) -> dict:
    """The floors of a text, in bits per symbol, its sizes, and how many counts each order keeps."""
    made = recipe(name)
    task = task_for(made, made.sizes[SIZE], folder, download=False)
    text, train = task.symbols("test"), task.symbols("train")
    own = task.decode(text[1:])
    orders = range(ORDERS[name] + 1)
    floors = text_floors(task, orders=orders, past=len(train))
    kept = [len(np.unique(grams(train, task.d_input, k))) for k in orders]
    return {
        "kinds": task.d_input,
        "train": len(train) - 1,
        "test": len(text) - 1,
        "bytes": len(own if isinstance(own, bytes) else own.encode()),
        "counts": np.cumsum(kept).tolist(),
        "bits": {kind: round(bits, DIGITS) for kind, bits in floors.items()},
    }


def main(argv: list[str] | None = None) -> int:
    """Read the texts, write the floors; 0 if they were written, 3 if a text is not to be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="folder with the published texts")
    parser.add_argument("-o", "--out", type=Path, default=HERE, help=f"folder to write {FILE} into")
    given = parser.parse_args(argv)
    texts = {}
    for name in ORDERS:
        try:
            texts[name] = of(given.data_dir, name)
        except (MissingData, DamagedData, NotADirectoryError) as error:
            print(error, f"{name} is wanted: nothing was written", sep="\n", file=sys.stderr)
            return 3
        print(f"{name}: {len(texts[name]['bits'])} floors", file=sys.stderr)
    about = {
        "command": "python chapters/_tools/make_language_floors.py DATA_DIR",
        "size": SIZE,
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__}
        | {"zlib": zlib.ZLIB_RUNTIME_VERSION},
    }
    text = json.dumps(about | {"texts": texts}, indent=1) + "\n"
    atomic_write(given.out / FILE, lambda file: file.write(text.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
