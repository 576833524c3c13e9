"""Latency, safety and quality measurements, and their report."""
