"""`python -m s4lite`, and what the script `s4lite` calls."""

import sys


def main() -> None:
    """Run the command line; where its packages are missing, say in one line how to get them."""
    try:
        from s4lite.cli.app import main as run
    except ModuleNotFoundError as error:
        if str(error.name).startswith("s4lite"):
            raise
        sys.exit(f"s4lite: {error}")
    run()


if __name__ == "__main__":
    main()
