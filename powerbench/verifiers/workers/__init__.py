"""Graders and extractors in processes of their own, with limits."""
