"""Requests, replies and broadcasts over RabbitMQ, which stands in front of Redis: a bridge carries between them."""
