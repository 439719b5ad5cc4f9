"""Side-by-side measurements against other engines: ``python -m benchmarks``."""
