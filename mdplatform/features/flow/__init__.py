"""Order flow: what takers bought and sold, what moved the price, and what waited in the book.

`order_flow`, `footprint`, `trade_bars` and `book` work on tables, for notebooks; `of_bars` and `of_trades` in the rows
of a grid, for features. Kernels that go through rows one by one have modules of their own.
"""
