"""The transport between strategies and what answers them: it moves bytes, and keeps one final answer per request id.

It knows nothing of what is asked or answered. `transport` is the protocol; each transport is one module.
"""
