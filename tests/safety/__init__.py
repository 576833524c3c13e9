"""Attempts to get round the safety of a bundle, kind by kind."""
