"""Measurements: `fcn-bench`; some more as scripts (`python benchmarks/head.py --help`)."""
