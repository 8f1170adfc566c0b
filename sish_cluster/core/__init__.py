"""Values and protocols: what every other package means by its words.

Lives here: units, geometry, packed arrays, keys, codes, slides, postings, candidates, queries,
filters, topology, settings, clocks, errors and the seams between packages.
Never lives here: input, output, threads, torch, gRPC, LMDB, numba. Standard library and numpy only.
"""
