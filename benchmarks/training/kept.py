"""What was measured already, so that a repeated command goes on where it stopped."""

import json
from pathlib import Path


class Kept:
    """What was measured already, in a file: a repeated command goes on where it stopped.

    Parameters
    ----------
    path
        JSON.
    identity
        What it was measured with; values of another are dropped.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self._values = found if found.get("identity") == identity else {"identity": identity}

    def value(self, name: str, measure):
        """Return the value of a name, from ``measure()`` if it is new."""
        if name not in self._values:
            self._values[name] = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._values) + "\n")
        return self._values[name]
