"""Tools that make the book: figures, execution, export, the site. No part of the library."""
