"""Counts as people read them: one slide, two slides, 1,204 patches."""

from __future__ import annotations

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
