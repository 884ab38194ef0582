"""Make chapters/data/{sunspots,co2,ecg_360hz}.csv out of the files of two Python packages.

    python chapters/_tools/make_signals.py STATSMODELS SCIPY [-o FOLDER]

STATSMODELS and SCIPY are the wheels (or folders unpacked from them) of statsmodels, and of a SciPy
before 1.12. The book carries the results, so nobody needs to run this; it is here to say exactly
what was done.
"""

import argparse
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent / "data"

# our file -> (its package, the published file, SHA-256 of that)
SOURCES = {
    "sunspots.csv": (
        "statsmodels",
        "statsmodels/datasets/sunspots/sunspots.csv",
        "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b",
    ),
    "co2.csv": (
        "statsmodels",
        "statsmodels/datasets/co2/co2.csv",
        "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
    ),
    "ecg_360hz.csv": (
        "scipy",
        "scipy/misc/ecg.dat",
        "f20ad3365fb9b7f845d0e5c48b6fe67081377ee466c3a220b7f69f35c8958baf",
    ),
}
RATE, FIRST, LAST = 360, 177, 185  # of the electrocardiogram: samples a second, seconds taken


def read(package: Path, name: str, sha256: str) -> bytes:
    """One published file, from a wheel or an unpacked one, after a look at its checksum."""
    if package.is_dir():
        content = (package / name).read_bytes()
    else:
        with zipfile.ZipFile(package) as wheel:
            content = wheel.read(name)
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"want {name} with SHA-256 {sha256}, got {got}")
    return content


def sunspots(content: bytes) -> str:
    """Year and number of sunspots, 1700 to 2008."""
    rows = [line.replace('"', "").split(",") for line in content.decode().split()[1:]]
    return "year,sunspots\n" + "".join(f"{int(float(y))},{float(n):g}\n" for y, n in rows)


def co2(content: bytes) -> str:
    """Day and parts per million, the weeks without a measurement left out."""
    rows = [line.strip().split(",") for line in content.decode().splitlines()[1:]]
    kept = [(day, value) for day, value in rows if value]
    return "date,co2\n" + "".join(f"{d[:4]}-{d[4:6]}-{d[6:]},{v}\n" for d, v in kept)


def ecg(content: bytes) -> str:
    """Eight seconds of the electrocardiogram, as the converter gave it: mV = (adc - 1024) / 200."""
    with np.load(io.BytesIO(content)) as archive:
        adc = archive["ecg"][FIRST * RATE : LAST * RATE]
    return "adc\n" + "".join(f"{n}\n" for n in adc)


MAKE = {"sunspots.csv": sunspots, "co2.csv": co2, "ecg_360hz.csv": ecg}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("statsmodels", type=Path, help="wheel of statsmodels, or its folder")
    parser.add_argument("scipy", type=Path, help="wheel of SciPy < 1.12, or its folder")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="default: the book's own")
    options = parser.parse_args(argv)
    try:
        made = {
            name: MAKE[name](read(getattr(options, package), file, sha256))
            for name, (package, file, sha256) in SOURCES.items()
        }
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        print(error, file=sys.stderr)
        return 1
    for name, text in made.items():
        (options.output / name).write_text(text)
        print(f"{name}: {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
