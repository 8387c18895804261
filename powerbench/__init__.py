"""powerbench: does sampling from p(x)^alpha give a base model the reasoning that others train for?

A *task* yields problems, a *sampler* is the algorithm for one response, written as sequential code
that asks for randomness and for text; an *engine* answers the requests of many chains at once, and
the *runner* connects them and appends finished samples to a *run folder*. *Verifiers* score the
folder; *reports*, figures and W&B are views of it.

The rooms, each row importing only from the rows above it (a test holds this):

    types errors cache machine
    rng config console models stats store
    samplers engines verifiers
    tasks report chains
    run
    cluster bench serve
    commands
    cli

Reproduces "Reasoning with Sampling" (Karan & Du, arXiv 2510.14901).
"""

__version__ = "0.1.0"
