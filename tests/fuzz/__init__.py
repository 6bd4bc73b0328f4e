"""Fuzzers of what strangers' bytes reach first (docs/fuzzing.md). `just fuzz` runs them; without atheris a find can
still be replayed: `python -m tests.fuzz NAME --replay FILE`.
"""
