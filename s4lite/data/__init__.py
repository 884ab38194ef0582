"""Data sets and generated tasks; this part of the package knows no other."""
