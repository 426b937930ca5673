"""Where raw bars come from; each source is one file behind one small protocol."""
