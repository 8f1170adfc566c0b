"""The rows of `benchmarks.bench_encode`: encoding, reading, memory."""
