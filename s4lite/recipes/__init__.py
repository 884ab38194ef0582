"""Experiments by name; `s4lite.recipes.catalogue` says what there is."""
