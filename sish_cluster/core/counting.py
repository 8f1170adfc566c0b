"""Counts and lists as people read them: one slide, 1,204 patches, a, b and 3 more."""

from __future__ import annotations

from collections.abc import Sequence

_ENDINGS = ("s", "x", "z", "ch", "sh")
"""Ends of nouns whose plural takes ``es``."""

_VOWELS = "aeiou"


def counted(n: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one.

    Parameters
    ----------
    n
        How many.
    noun
        In the singular; of several words the last is put into the plural.

    Examples
    --------
    >>> counted(1, "slide"), counted(0, "query patch"), counted(1204, "query")
    ('1 slide', '0 query patches', '1,204 queries')
    """
    return f"{n:,} {noun if n == 1 else plural_of(noun)}"


def plural_of(noun: str) -> str:
    """Return a regular noun's plural.

    Examples
    --------
    >>> plural_of("patch"), plural_of("key"), plural_of("query"), plural_of("posting")
    ('patches', 'keys', 'queries', 'postings')
    """
    if noun.endswith(_ENDINGS):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def listed(names: Sequence[str], *, most: int) -> str:
    """Return the first ``most`` names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2), listed(["a", "b"], most=2)
    ('a, b and 1 more', 'a, b')
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
