"""The operations of the gateway: requests, features, the catalogue, health; and answers over WebSocket."""
