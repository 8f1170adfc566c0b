"""The shard: a part of every collection, its index in memory and its durable store.

Lives here: the van Emde Boas tree, posting segments, search kernels, the LMDB store, the one writer,
consistent views, the shard's service, scrub and backup.
Never lives here: torch, other shards, what a ranking means.
"""
