"""The request worker: takes requests, answers them from near cache, Redis, memory or the lake, or sends them to a run.

`handler` is its life (taking, settling, parking, standing requests); `evaluator` is how one request becomes values.
"""
