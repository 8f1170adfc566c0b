"""The command line: what a person types, what they read, and how a failure ends.

Lives here: options, tables, exit codes.
Never lives here: anything a program would want to call; that is in `local`, `client` and `report`.
"""

from sish_cluster.cli.main import main

__all__ = ["main"]
