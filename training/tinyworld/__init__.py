"""Trains models/tinyworld: see README.md."""
