"""What a person would take instead of this library, each behind the same small interface.

Every peer runs in an environment of its own, as `python -m benchmarks.peers`, so nothing here may
need more than the standard library before the peer's own module is loaded.
"""
