"""Searches of query patches: published, guided and exact, beside a plain-Python search and faiss."""

import faiss
import numpy as np
from sortedcontainers import SortedList

from benchmarks.index.data import CODE_BITS, PATCHES_PER_SLIDE, postings_drawn, queries_drawn
from benchmarks.index.measure import row
from sish_cluster.core.clock import NEVER_CANCELLED
from sish_cluster.core.key import seeds_of
from sish_cluster.core.query import Mode, SearchSettings
from sish_cluster.shard.index import PostingIndex
from sish_cluster.shard.layout import HEAD

HEAD_BYTES = 8 * HEAD


class Bench:
    """Postings, their index, and a slide query of 100 patches."""

    def __init__(self, n, *, rng_seed, distribution, n_queries=100):
        self.n = n
        self.postings = postings_drawn(n, rng_seed=rng_seed, distribution=distribution)
        self.index = PostingIndex.bulk(CODE_BITS // 8, **self.postings.columns())
        self.keys, self.codes = queries_drawn(self.postings, n_queries, rng_seed=rng_seed)
        self.everyone = np.ones(-(-n // PATCHES_PER_SLIDE), bool)
        self.everyone.flags.writeable = False

    def search(self, mode, *, part=slice(None), eligible=None, passing=None, **bounds):
        """Run one search of the query's patches ``part``."""
        return self.index.snapshot().search(
            self.keys[part],
            self.codes[part],
            SearchSettings(mode=mode, **bounds),
            eligible=self.everyone if eligible is None else eligible,
            slide_ids_of=lambda ordinals: [f"s{o:07d}" for o in ordinals.tolist()],
            mergeable=False,
            cancellation=NEVER_CANCELLED,
            passing=passing,
        )

    def recall(self, found, exact):
        """Return the share of the exact answer's postings that another answer has."""
        there = _postings_of(exact)
        return len(there & _postings_of(found)) / max(len(there), 1)


def _postings_of(found):
    patches = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    return set(zip(patches.tolist(), found.ordinals.tolist(), found.numbers.tolist(), strict=True))


class PlainSearch:
    """The published search in plain Python over a SortedList of keys."""

    def __init__(self, postings):
        self.at = {}
        for place, (key, code) in enumerate(
            zip(postings.keys.tolist(), postings.codes, strict=True)
        ):
            self.at.setdefault(key, []).append((int.from_bytes(code.tobytes()), place))
        self.keys = SortedList(self.at)

    def search(self, query, code, settings):
        """Return the accepted (distance, place) in published order."""
        accepted = {}
        seeds = seeds_of(
            query, seed_spacing=settings.seed_spacing, seeds_per_side=settings.seeds_per_side
        )
        for seed in seeds:
            for way in (-1, 1):
                self._walk(seed, way, code, settings, accepted)
        return sorted(accepted.values(), key=lambda row: row[0])

    def _walk(self, key, way, code, settings, accepted):
        for _ in range(settings.max_steps):
            i = self.keys.bisect_left(key) - 1 if way < 0 else self.keys.bisect_right(key)
            if not 0 <= i < len(self.keys):
                return
            key = self.keys[i]
            if key in accepted:
                return
            nearest = min(((code ^ other).bit_count(), place) for other, place in self.at[key])
            if nearest[0] <= settings.max_distance:
                accepted[key] = nearest


def published_rows(watch, bench, *, n_plain=5):
    """Yield the published search of one patch, alone and in a slide's query, beside plain Python."""
    plain, settings = PlainSearch(bench.postings), SearchSettings(mode=Mode.SISH)
    wants, spent = [], []
    for i in range(n_plain):
        query = (int(bench.keys[i]), int.from_bytes(bench.codes[i].tobytes()))
        spent.append(watch.once(lambda query=query: wants.append(plain.search(*query, settings))))
    found = bench.search(Mode.SISH)
    is_same = all([place for _, place in want] == _places(found, i) for i, want in enumerate(wants))
    together = watch.times(lambda: bench.search(Mode.SISH))
    alone = [
        watch.once(lambda i=i: bench.search(Mode.SISH, part=slice(i, i + 1))) for i in range(100)
    ]
    n_patches, slow = len(bench.keys), np.median(spent)
    sure = {"what": "published search", "size": bench.n, "unit": "patch"}
    goal = ">=500 x plain"
    seen = float(found.examined_counts.mean())
    quality = f"equal={is_same} examined={seen:.0f}"
    yield row(
        who="index, 100 together",
        spent=together,
        per=n_patches,
        quality=quality,
        ratio=slow / (np.median(together) / n_patches),
        goal=goal,
        **sure,
    )
    yield row(
        who="index, one alone",
        spent=alone,
        per=1,
        quality=quality,
        ratio=slow / np.median(alone),
        goal=goal,
        **sure,
    )
    yield row(who="plain Python", spent=spent, per=1, **sure)


def _places(found, patch):
    part = slice(found.offsets[patch], found.offsets[patch + 1])
    return (found.ordinals[part].astype(int) * PATCHES_PER_SLIDE + found.numbers[part]).tolist()


def guided_rows(watch, bench, base_ns, bandwidth):
    """Yield the guided search per examined posting, with recall against the exact scan."""
    found = bench.search(Mode.GUIDED)
    exact = bench.search(Mode.EXACT)
    spent = watch.times(lambda: bench.search(Mode.GUIDED))
    examined = int(found.examined_counts.sum())
    per_posting = np.median(spent) / examined
    streamed = examined * (HEAD_BYTES + 8) / bandwidth * 1e9
    yield row(
        "guided search",
        bench.n,
        "index",
        spent,
        examined,
        "posting",
        quality=f"recall={bench.recall(found, exact):.3f}",
        ratio=per_posting / base_ns if base_ns else 1.0,
        goal="<=1.5 x smallest N",
        limit=f"{streamed / np.median(spent):.0%} of bandwidth",
    )
    patches = len(bench.keys)
    yield row(
        "guided search",
        bench.n,
        "index",
        spent,
        patches,
        "patch",
        quality=f"examined={examined / patches:.0f}",
    )


def exact_rows(watch, bench, words_per_s):
    """Yield the exact scan of 100 patches, beside faiss on one thread."""
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(CODE_BITS)
    flat.add(bench.postings.codes)
    found = bench.search(Mode.EXACT)
    limits, distances, _ = flat.range_search(bench.codes, 129)
    theirs = [
        sorted(distances[limits[i] : limits[i + 1]].astype(int).tolist())
        for i in range(len(bench.keys))
    ]
    ours = [
        found.distances[found.offsets[i] : found.offsets[i + 1]].tolist()
        for i in range(len(bench.keys))
    ]
    scan = watch.times(lambda: bench.search(Mode.EXACT), repeats=5)
    ranged = watch.times(lambda: flat.range_search(bench.codes, 129), repeats=3)
    nearest = watch.times(lambda: flat.search(bench.codes, 10), repeats=3)
    pairs = bench.n * len(bench.keys)
    sure = {"what": "exact, 100 patches", "size": bench.n, "unit": "pair"}
    share = pairs * HEAD / words_per_s * 1e9 / np.median(scan)
    for name, peer in (("range", ranged), ("knn", nearest)):
        yield row(
            who="index",
            spent=scan,
            per=pairs,
            quality=f"equal={ours == theirs}",
            **sure,
            ratio=np.median(peer) / np.median(scan),
            goal=f">=3 x faiss {name}",
            limit=f"{share:.0%} of in-cache rate",
        )
        yield row(who=f"faiss {name}", spent=peer, per=pairs, **sure)
