"""GPU twins of the hot operations, as Triton kernels: optional, and never silently used."""
