"""Measurements: `fcn-bench accuracy`; head and sizes as scripts (`python benchmarks/head.py --help`)."""
