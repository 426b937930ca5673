"""Correlation of many series: the matrix, rolling windows, lead and lag, beta, clusters and spanning trees.

- `panels`: returns on a common grid, from whatever table they come in;
- `pairwise`, `ranks`: what a matrix is computed by; `pair_kernels` does single pairs, to the last digits;
- `matrix`: `correlation_matrix`, and what it answers with (`result`), shrunk (`shrinkage`) or mended (`nearest_psd`);
- `rolling`: one pair or many, in a window that slides;
- `lead_lag`, `beta`, `clusters`: what is made of it;
- `reading`: `correlation_of`, from the bars that there are.
"""

ENGINE = "correlation 1"
"""Names the kernels; it changes when their values do, and is part of the identity of what they compute."""
