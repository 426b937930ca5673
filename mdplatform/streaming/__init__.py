"""Streaming: bars from a feed, features of each closed bar, and frames in which several timeframes are in step."""
