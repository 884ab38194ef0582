"""The command line: `s4lite`, or `python -m s4lite`."""

try:
    import typer  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'the command line needs more: pip install "s4lite[train]" ({error.name} is not here)',
        name=error.name,
    ) from error
