"""Benchmarks: `make bench` (CPU, the bundled model) and `make bench-gpu` (CUDA, random weights).

Speeds are compared within one run: what is compared takes turns, and the ratio is the median over turns.
"""
