"""Ordered sets of keys: the van Emde Boas tree beside everything else that keeps keys in order."""

import bisect
import tempfile

import lmdb
import numpy as np
import pyroaring
from sortedcontainers import SortedList

from benchmarks.index.data import keys_drawn
from benchmarks.index.measure import row
from sish_cluster.shard.veb import VebTree

_PEER_QUERIES = 20_000


def drawn(n, *, rng_seed, distribution):
    """Return n or slightly fewer distinct keys, ascending."""
    return np.unique(keys_drawn(np.random.default_rng(rng_seed), n, distribution)).astype(np.int64)


def successor_rows(watch, n, *, rng_seed, distribution, n_queries=200_000):
    """Yield the time of one successor, random queries near keys, for every peer."""
    keys = drawn(n, rng_seed=rng_seed, distribution=distribution)
    rng = np.random.default_rng(rng_seed + 1)
    queries = rng.choice(keys, n_queries) + rng.integers(-1000, 1000, n_queries)
    tree = VebTree(keys)
    padded = np.append(keys, -1)
    want = padded[np.searchsorted(keys, queries, side="right")]
    same = f"equal={bool((tree.successors_of(queries) == want).all())}"
    ours = watch.times(lambda: tree.successors_of(queries))
    searched = watch.times(lambda: np.searchsorted(keys, queries, side="right"))
    few = queries[:_PEER_QUERIES].tolist()
    listed = SortedList(keys.tolist())
    by_list = watch.times(
        lambda: [listed[listed.bisect_right(q)] for q in few if q < keys[-1]], repeats=3
    )
    sure = {"what": "successor", "size": n, "unit": "query"}
    bytes_per_key = f"{same} {tree.memory_bytes / len(tree):.0f} B/key"
    per_list = np.median(by_list) / len(few)
    yield row(
        who="VebTree",
        spent=ours,
        per=n_queries,
        quality=bytes_per_key,
        **sure,
        ratio=np.median(searched) / np.median(ours),
        goal=">1 x searchsorted",
    )
    yield row(
        who="VebTree",
        spent=ours,
        per=n_queries,
        quality=same,
        **sure,
        ratio=per_list / (np.median(ours) / n_queries),
        goal=">=10 x SortedList",
    )
    yield row(who="np.searchsorted", spent=searched, per=n_queries, quality="8 B/key", **sure)
    yield row(who="SortedList", spent=by_list, per=len(few), **sure)
    yield from _plain_rows(watch, keys, few, sure)


def _plain_rows(watch, keys, few, sure):
    plain = keys.tolist()
    bisected = watch.times(
        lambda: [plain[bisect.bisect_right(plain, q)] for q in few if q < plain[-1]], repeats=3
    )
    yield row(who="bisect, list", spent=bisected, per=len(few), **sure)
    roaring = pyroaring.BitMap64(keys.astype(np.uint64).tolist())
    fewer = few[:200]
    by_bit = watch.times(
        lambda: [roaring.next_set_bit(q + 1) for q in fewer if q < plain[-1]], repeats=3
    )
    yield row(who="pyroaring 64", spent=by_bit, per=len(fewer), **sure)
    with (
        tempfile.TemporaryDirectory() as folder,
        lmdb.open(folder, map_size=1 << 32, sync=False) as env,
    ):
        with env.begin(write=True) as txn:
            txn.cursor().putmulti(((k.to_bytes(8, "big"), b"") for k in plain), append=True)
        with env.begin() as txn:
            cursor = txn.cursor()
            asked = [(q + 1).to_bytes(8, "big") for q in few]
            by_cursor = watch.times(
                lambda: [cursor.set_range(q) and cursor.key() for q in asked], repeats=3
            )
    yield row(who="LMDB cursor", spent=by_cursor, per=len(few), **sure)


def change_rows(watch, n, *, rng_seed, distribution, n_changes=100_000):
    """Yield the time of inserting and deleting a random key of a set of n."""
    keys = drawn(n, rng_seed=rng_seed, distribution=distribution)
    rng = np.random.default_rng(rng_seed + 2)
    added = np.setdiff1d(keys_drawn(rng, n_changes, distribution).astype(np.int64), keys)
    rng.shuffle(added)
    removed = rng.permutation(added)
    tree = VebTree(keys)

    def on_tree():
        tree.insert_all(added)
        tree.delete_all(removed)

    ours = watch.times(on_tree)
    is_same = len(tree) == len(keys) and bool((np.fromiter(tree, np.int64) == keys).all())
    listed = SortedList(keys.tolist())
    some = added[: len(added) // 5].tolist()
    back = rng.permutation(some).tolist()

    def on_list():
        for key in some:
            listed.add(key)
        for key in back:
            listed.remove(key)

    peer = watch.times(on_list, repeats=3)
    ratio = (np.median(peer) / len(some)) / (np.median(ours) / len(added))
    sure = {"what": "insert + delete", "size": n, "unit": "pair"}
    yield row(
        who="VebTree",
        spent=ours,
        per=len(added),
        quality=f"equal={is_same}",
        ratio=ratio,
        goal=">=10 x SortedList",
        **sure,
    )
    yield row(who="SortedList", spent=peer, per=len(some), **sure)
