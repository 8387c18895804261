"""Engines: they answer the Extend requests of many chains at once; `base.py` holds the protocol."""
