"""What bench_index measures: data, ordered keys, searches, memory."""
