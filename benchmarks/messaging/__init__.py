"""Benchmarks of messaging: ours, the floors of the machine and other systems, side by side."""
