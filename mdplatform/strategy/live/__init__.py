"""The inside of the consumer: what is checked, heard, assembled, given to callbacks, and replayed."""
