"""s4lite: S4 sequence layers, as derived line by line in the book that comes with them."""

__version__ = "0.1.0"
