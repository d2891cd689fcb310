"""Measurements: accuracy, head and sizes, each a command of its own (`python benchmarks/accuracy.py --help`)."""
