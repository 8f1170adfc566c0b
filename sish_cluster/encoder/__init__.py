"""From a slide to keys and codes.

Lives here: reading slides, tissue, patches, artifacts, mosaics, the networks, keying and texture
codes, the pipeline that strings them together, its actor and its server.
Never lives here: postings at rest (`sish_cluster.shard`), topologies (`sish_cluster.router`).
"""
