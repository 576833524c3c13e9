"""Checkpoint → bundle. Needs torch; nothing in ``runtime`` or ``engines`` imports it."""
