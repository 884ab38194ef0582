"""Training: data, objectives, schedules and a Lightning module, for recipes and for your own."""

try:
    import lightning  # noqa: F401
    import safetensors  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f's4lite.train needs more: pip install "s4lite[train]" ({error.name} is not here)',
        name=error.name,
    ) from error
