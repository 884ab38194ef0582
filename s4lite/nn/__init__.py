"""Modules: layers take (batch, L, d_model), as a Transformer layer does."""
