"""Requests, replies and broadcasts over Redis."""
