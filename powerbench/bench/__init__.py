"""Benchmarks: `make bench` (CPU, the bundled model) and `make gpu-hour` (CUDA, random weights).

Speeds are compared within one run, in interleaved rounds: a ratio is the median over rounds of the ratios
within a round.
"""

from powerbench.machine.threads import choose_threads

choose_threads()  # here, since most of its programs import torch in their first lines
