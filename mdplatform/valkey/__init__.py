"""The Redis server: the embedded Valkey of a home with its keeper, and connections to it or to another."""
