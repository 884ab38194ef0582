"""Pure functions: no parameters, no data; the length is the last axis."""
