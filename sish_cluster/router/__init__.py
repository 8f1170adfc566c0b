"""The router: one front for all shards of a topology.

Lives here: the topology file, the fan-out over shards, the merge that makes every cut answer as one
index would, ranking, two-phase ingest and its janitor, the router's service and its shard client.
Never lives here: pixels, networks, postings on disk, the tree. No torch, no LMDB, no Ray; gRPC only
in `server` and `shard_client`. Merge and ranking are pure: arrays in, arrays out.
"""
