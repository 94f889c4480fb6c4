"""One bench_<op>.py per op, and the bytes model; `python -m benchmarks` runs them all."""
