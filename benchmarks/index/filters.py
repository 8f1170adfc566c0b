"""Selective filters beside no filter, for the same number of examined postings.

A slide's query under a filter is timed cold (no search has used the filter before: its rows are found and
copied) and warm. Beside it stands the search without a filter whose ``max_steps`` makes it examine as many
postings, so that both do the same work; what is left is what the filter costs.
"""

import numpy as np

from benchmarks.index.measure import row
from sish_cluster.core.query import Mode
from sish_cluster.shard.scope import Passing

REPEATS = 9


class Filtered:
    """A search under filters of one share; every ``cold`` search has slides of its own."""

    def __init__(self, bench, share, rng):
        self._bench, self._rng = bench, rng
        self._n_eligible = max(1, round(share * len(bench.everyone)))
        self.passing, self.eligible = self._drawn()

    def _drawn(self):
        flags = np.zeros(len(self._bench.everyone), bool)
        flags[self._rng.choice(len(flags), self._n_eligible, replace=False)] = True
        passing = Passing()
        passing.add(0, flags)
        flags.flags.writeable = False
        return passing, flags

    def search(self):
        """Search with the filter asked for before."""
        return self._bench.search(Mode.GUIDED, eligible=self.eligible, passing=self.passing)

    def cold(self, watch):
        """Return the nanoseconds of the first search with another filter."""
        self.passing, self.eligible = self._drawn()
        return watch.once(self.search)


def steps_examining(bench, wanted):
    """Return the ``max_steps`` with which an unfiltered search examines about as many postings."""
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        found = bench.search(Mode.GUIDED, max_steps=middle)
        if int(found.examined_counts.sum()) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def filter_rows(watch, bench, shares=(0.01, 0.0001)):
    """Yield the guided search under selective filters, cold and warm, beside its equal without one."""
    rng = np.random.default_rng(5)
    for share in shares:
        filtered = Filtered(bench, share, rng)
        some = filtered.search()
        warm = watch.times(filtered.search, repeats=REPEATS)
        cold = [filtered.cold(watch) for _ in range(REPEATS)]
        examined = int(some.examined_counts.sum())
        steps = steps_examining(bench, examined)
        free = bench.search(Mode.GUIDED, max_steps=steps)
        n_free = int(free.examined_counts.sum())
        alone = watch.times(lambda n=steps: bench.search(Mode.GUIDED, max_steps=n), repeats=REPEATS)
        per_posting = np.median(alone) / n_free
        who = f"{share:.2%} eligible"
        sure = {"what": "filtered search", "size": bench.n, "unit": "posting"}
        for name, spent in (("warm", warm), ("first", cold)):
            yield row(
                who=f"{who}, {name}", spent=spent, per=examined, **sure,
                quality=f"examined={examined}", ratio=np.median(spent) / examined / per_posting,
                goal="<=3 x no filter",
            )  # fmt: skip
        yield row(
            who=f"no filter, max_steps={steps}", spent=alone, per=n_free, quality=f"examined={n_free}",
            **sure,
        )  # fmt: skip
