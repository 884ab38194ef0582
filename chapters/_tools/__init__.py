"""Tools that make the book: figures, execution, export, the site and its check. No part of the library."""
