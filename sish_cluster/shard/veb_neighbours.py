"""Finding the key after and before another, in stages that a batch can overlap.

Every answer ends with one more look-up: the bounds of the cluster that the neighbour lies in. It is where
a lone look-up waits for memory last, so the search for a neighbour is two functions: one that comes as far
as naming that cluster, and one that looks it up. A batch prefetches between the two.

An unfinished answer is negative: ``-2 - (path << 1 | family)``, family 0 for an A node, 1 for one of its
clusters. -1 is no key.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from sish_cluster.shard.compiled import inner
from sish_cluster.shard.veb_levels import LOW12, LOW24, bounds_of
from sish_cluster.shard.veb_nodes import (
    A,
    B,
    D,
    T,
    bounds12,
    dense_after,
    dense_before,
    high_of,
    ident_of,
    low_of,
    predecessor12,
    successor12,
)
from sish_cluster.shard.veb_table import (
    ABSENT,
    HIGH,
    LOW,
    N_KEYS,
    SUMMARY,
    bring_entry,
)
from sish_cluster.shard.words import word_at


@inner
def unfinished(family: int, path: int) -> int:
    """Return the unfinished answer that ends in the A node (family 0) or D cluster (1) at a path."""
    return -2 - ((path << 1) | family)


@inner
def bring_end(tree: int, answer: int) -> None:
    """Prefetch what finishing an answer reads."""
    if answer < -1:
        named = -2 - answer
        bring_entry(tree, ident_of(D if named & 1 else A, named >> 1))


@inner
def finished_successor(tree: int, answer: int) -> int:
    """Return a finished answer as it is, and of an unfinished one its cluster's smallest key."""
    if answer >= -1:
        return answer
    path = (-2 - answer) >> 1
    if (-2 - answer) & 1:
        return (path << 12) | low_of(bounds12(tree, D, path))
    return (path << 24) | low_of(bounds_of(tree, path))


@inner
def finished_predecessor(tree: int, answer: int) -> int:
    """Return a finished answer as it is, and of an unfinished one its cluster's greatest key."""
    if answer >= -1:
        return answer
    path = (-2 - answer) >> 1
    if (-2 - answer) & 1:
        return (path << 12) | high_of(bounds12(tree, D, path))
    return (path << 24) | high_of(bounds_of(tree, path))


@inner
def top_after(tree: int, x: int) -> int:
    """Return the element after x of the top summary, which has one."""
    bounds = word_at(tree, SUMMARY)
    if x < low_of(bounds):
        return low_of(bounds)
    high, low = x >> 12, x & LOW12
    cluster = bounds12(tree, T, high)
    if cluster != ABSENT and low < high_of(cluster):
        return (high << 12) | successor12(tree, T, high, low)
    high = dense_after(tree, high)
    return (high << 12) | low_of(bounds12(tree, T, high))


@inner
def top_before(tree: int, x: int) -> int:
    """Return the element before x of the top summary, which has one."""
    bounds = word_at(tree, SUMMARY)
    if x > high_of(bounds):
        return high_of(bounds)
    high, low = x >> 12, x & LOW12
    cluster = bounds12(tree, T, high)
    if cluster != ABSENT and low > low_of(cluster):
        return (high << 12) | predecessor12(tree, T, high, low)
    high = dense_before(tree, high)
    if high < 0:
        return low_of(bounds)
    return (high << 12) | high_of(bounds12(tree, T, high))


@inner
def node_after(tree: int, path: int, bounds: int, x: int) -> int:
    """Return the key after ``path << 24 | x``, or its unfinished answer; the A node has a greater one."""
    if x < low_of(bounds):
        return (path << 24) | low_of(bounds)
    high, low = (path << 12) | (x >> 12), x & LOW12
    cluster = bounds12(tree, D, high)
    if cluster != ABSENT and low < high_of(cluster):
        return (high << 12) | successor12(tree, D, high, low)
    return unfinished(1, (path << 12) | successor12(tree, B, path, x >> 12))


@inner
def node_before(tree: int, path: int, bounds: int, x: int) -> int:
    """Return the key before ``path << 24 | x``, or its unfinished answer; the A node has a smaller one."""
    if x > high_of(bounds):
        return (path << 24) | high_of(bounds)
    part, low = x >> 12, x & LOW12
    high = (path << 12) | part
    cluster = bounds12(tree, D, high)
    if cluster != ABSENT and low > low_of(cluster):
        return (high << 12) | predecessor12(tree, D, high, low)
    summary = bounds12(tree, B, path)
    if summary == ABSENT or part <= low_of(summary):
        return (path << 24) | low_of(bounds)
    return unfinished(1, (path << 12) | predecessor12(tree, B, path, part))


@inner
def begun_successor(tree: int, x: int) -> int:
    """Return the smallest key above x (any int64), -1 where there is none, or its unfinished answer."""
    if word_at(tree, N_KEYS) == 0 or x >= word_at(tree, HIGH):
        return -1
    if x < word_at(tree, LOW):
        return word_at(tree, LOW)
    high, low = x >> 24, x & LOW24
    bounds = bounds_of(tree, high)
    if bounds != ABSENT and low < high_of(bounds):
        return node_after(tree, high, bounds, low)
    return unfinished(0, top_after(tree, high))


@inner
def begun_predecessor(tree: int, x: int) -> int:
    """Return the greatest key below x (any int64), -1 where there is none, or its unfinished answer."""
    if word_at(tree, N_KEYS) == 0 or x <= word_at(tree, LOW):
        return -1
    if x > word_at(tree, HIGH):
        return word_at(tree, HIGH)
    high, low = x >> 24, x & LOW24
    bounds = bounds_of(tree, high)
    if bounds != ABSENT and low > low_of(bounds):
        return node_before(tree, high, bounds, low)
    summary = word_at(tree, SUMMARY)
    if summary == ABSENT or high <= low_of(summary):
        return word_at(tree, LOW)
    return unfinished(0, top_before(tree, high))


@inner
def tree_successor(tree: int, x: int) -> int:
    """Return the smallest key above x, or -1; x is any int64."""
    return finished_successor(tree, begun_successor(tree, x))


@inner
def tree_predecessor(tree: int, x: int) -> int:
    """Return the greatest key below x, or -1; x is any int64."""
    return finished_predecessor(tree, begun_predecessor(tree, x))


@inner
def tree_contains(tree: int, x: int) -> bool:
    """Whether the tree has the key x."""
    if word_at(tree, N_KEYS) == 0 or x < word_at(tree, LOW) or x > word_at(tree, HIGH):
        return False
    if x == word_at(tree, LOW):
        return True
    return x == tree_successor(tree, x - 1)


@inner
def bring_node(tree: int, x: int) -> None:
    """Prefetch the first entry that a search around x reads."""
    bring_entry(tree, ident_of(A, x >> 24))


@inner
def bring_below(tree: int, x: int) -> None:
    """Prefetch what a search around x reads next; `bring_node` went before it."""
    bounds, low = bounds_of(tree, x >> 24), x & LOW24
    is_within = low_of(bounds) <= low and low <= high_of(bounds)
    if bounds != ABSENT and is_within and low_of(bounds) != high_of(bounds):
        bring_entry(tree, ident_of(D, x >> 12))
        bring_entry(tree, ident_of(D + 2, x >> 6))
        bring_entry(tree, ident_of(B, x >> 24))
        bring_entry(tree, ident_of(B + 2, x >> 18))
        return
    bring_entry(tree, ident_of(T, x >> 36))
    bring_entry(tree, ident_of(T + 1, x >> 36))
    bring_entry(tree, ident_of(T + 2, x >> 30))


@inner
def bring_around(tree: int, x: int) -> None:
    """Prefetch what finding a key's predecessor or successor in a sparse tree is most likely to read."""
    bring_node(tree, x)
    bring_entry(tree, ident_of(T, x >> 36))
    bring_entry(tree, ident_of(T + 1, x >> 36))
    bring_entry(tree, ident_of(T + 2, x >> 30))
