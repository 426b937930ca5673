"""Feeds: where events come from while the market is open. Each venue is one file behind one small protocol."""
