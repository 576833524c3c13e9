"""Activations → INT8/FP8 Q/DQ graphs."""
