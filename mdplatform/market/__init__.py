"""The words of the market: symbols, timeframes, bars, their rules and their resampling. Knows nothing else."""
