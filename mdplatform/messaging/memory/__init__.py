"""Requests, replies and broadcasts inside of one process."""
