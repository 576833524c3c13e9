"""Passes over graphs, one a file: what each needs of a graph and what it leaves is said at its top. Needs no torch."""
