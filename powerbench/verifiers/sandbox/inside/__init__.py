"""What runs inside the sandbox, in a bare interpreter: imports little, and nothing from outside this folder.

There it is a top-level package (hence the relative imports), elsewhere a part of powerbench.
"""
