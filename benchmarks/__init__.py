"""Benchmarks: what the platform costs on top of the bare libraries, measured side by side in one run.

`python -m benchmarks [--short]` runs them all; `docs/benchmarks.md` says what each measures and what came out.
"""
