"""Payloads with large pieces: bytes, arrays, tables, and models and dicts that hold some; pickles.

Loaded with the first such payload: a process that has none imports nothing of this.
"""
