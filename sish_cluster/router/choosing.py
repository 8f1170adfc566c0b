"""Which search AUTO runs, and why.

EXACT misses nothing, so it runs whenever it can be done in time: when scanning all eligible postings is
estimated to need no more than a share of the time left until the deadline. GUIDED runs beyond that. A
collection without codes has only DIRECT; one without keys of a key encoder has no guided search.

A choice is made once per search, from the time left and the speed as they are then, and depends on the
eligible postings of the whole collection alone: how they are cut into shards changes nothing.
"""

from __future__ import annotations

import dataclasses

from sish_cluster.core.collection import Collection
from sish_cluster.core.query import Mode, Query
from sish_cluster.router.settings import RouterSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A mode, and why it was chosen.

    Parameters
    ----------
    mode
        What runs; never AUTO.
    reason
        For people, without the mode's name.
    """

    mode: Mode
    reason: str

    @property
    def told(self) -> str:
        """``mode: reason``, as answers carry it."""
        return f"{self.mode.value}: {self.reason}"


@dataclasses.dataclass(frozen=True, slots=True)
class Affordable:
    """What one search can pay for, fixed when it begins.

    Parameters
    ----------
    n_query_patches
        Patches of the query.
    patch_bytes
        Bytes of one code.
    time_left_s
        Seconds until the deadline.
    bytes_per_s
        Speed of a scan.
    exact_share, exact_limit_s
        See `RouterSettings`.
    """

    n_query_patches: int
    patch_bytes: int
    time_left_s: float
    bytes_per_s: float
    exact_share: float
    exact_limit_s: float

    def scan_bytes(self, eligible: int) -> int:
        """Return the bytes of codes an exact search of ``eligible`` postings compares."""
        return eligible * self.n_query_patches * self.patch_bytes

    def scan_s(self, eligible: int) -> float:
        """Return the estimated seconds of that search."""
        return self.scan_bytes(eligible) / self.bytes_per_s

    def choice(self, eligible: int) -> Choice:
        """Return EXACT or GUIDED for ``eligible`` postings of the whole collection."""
        needed_s = self.scan_s(eligible)
        work = f"{eligible:,} eligible postings x {self.n_query_patches:,} patches"
        share_s = self.exact_share * self.time_left_s
        if needed_s <= min(share_s, self.exact_limit_s):
            reason = f"{work} need {_estimated(needed_s)} of the {_told(self.time_left_s)} left"
            return Choice(Mode.EXACT, reason)
        bound = (
            f"{self.exact_share:.0%} of the {_told(self.time_left_s)} left"
            if share_s <= self.exact_limit_s
            else f"the {_told(self.exact_limit_s)} an automatic search may scan"
        )
        return Choice(Mode.GUIDED, f"to scan {work} needs {_estimated(needed_s)}, above {bound}")


def affordable(
    query: Query, *, time_left_s: float, bytes_per_s: float, settings: RouterSettings
) -> Affordable:
    """Return what a search can pay for."""
    return Affordable(
        n_query_patches=len(query.patches),
        patch_bytes=query.patches.code_bytes,
        time_left_s=max(time_left_s, 0.0),
        bytes_per_s=bytes_per_s,
        exact_share=settings.exact_share,
        exact_limit_s=settings.exact_limit_s,
    )


def settled(definition: Collection, mode: Mode) -> Choice | None:
    """Return the choice that needs no count: what was asked for, or the only mode there is."""
    if mode is not Mode.AUTO:
        return Choice(mode, "asked for")
    if not definition.code_bits:
        return Choice(Mode.DIRECT, "the collection keeps embeddings and no codes")
    if not definition.has_keys:
        return Choice(Mode.EXACT, "the collection has no keys of a key encoder to be guided by")
    return None


def _estimated(seconds: float) -> str:
    """Return estimated seconds for people.

    Examples
    --------
    >>> _estimated(0.0004), _estimated(0.0123)
    ('less than 1 ms', 'about 12 ms')
    """
    return _told(seconds) if seconds < 0.001 else f"about {_told(seconds)}"


def _told(seconds: float) -> str:
    """Return seconds for people.

    Examples
    --------
    >>> [_told(s) for s in (0.0004, 0.0123, 9.81, 54.4)]
    ['less than 1 ms', '12 ms', '9.8 s', '54 s']
    """
    if seconds < 0.001:
        return "less than 1 ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
