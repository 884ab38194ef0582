"""Make chapters/data/mnist14.npz out of the four official files of MNIST.

    python chapters/_tools/make_digits.py FOLDER [-o OUTPUT]

FOLDER holds the files as they were published, still compressed. The script takes every sixth
image of the training file and every fifth of the test file, averages blocks of 2 x 2 pixels, and
writes 10,000 + 2,000 images of 14 x 14 bytes with their labels. The book carries the result, so
nobody needs to run this; it is here to say exactly what was done.
"""

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent / "data" / "mnist14.npz"

# name in our file -> (published file, its MD5, bytes before the numbers, every how many-th)
SOURCES = {
    "train_images": ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 16, 6),
    "train_labels": ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 8, 6),
    "test_images": ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 16, 5),
    "test_labels": ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 8, 5),
}


def read(path: Path, md5: str, header: int) -> np.ndarray:
    """The bytes behind the header of one published file, after a look at its checksum."""
    packed = path.read_bytes()
    got = hashlib.md5(packed).hexdigest()
    if got != md5:
        raise ValueError(f"want {path.name} with MD5 {md5}, got {got}")
    return np.frombuffer(gzip.decompress(packed), np.uint8, offset=header)


def pool(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 blocks, rounded (halves to even): (n, 28, 28) to (n, 14, 14), bytes."""
    blocks = images.reshape(-1, 14, 2, 14, 2)
    return np.rint(blocks.mean((2, 4), dtype=np.float64)).astype(np.uint8)


def digits(folder: Path) -> dict[str, np.ndarray]:
    """The four arrays of mnist14.npz."""
    arrays = {}
    for name, (file, md5, header, every) in SOURCES.items():
        numbers = read(folder / file, md5, header)
        if name.endswith("images"):
            arrays[name] = pool(numbers.reshape(-1, 28, 28)[::every])
        else:
            arrays[name] = numbers[::every]
    return arrays


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the four .gz files are")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="default: the book's own")
    options = parser.parse_args(argv)
    try:
        arrays = digits(options.folder)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output.name}: {options.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
