"""Load: what a crowd of strategies gets when it asks, measured from the instant at which each request was due.

`requests.measure` is the whole of it: `place` makes a home with a simulated market, `plan` says who asks what and when,
`drive` asks, `samples` keeps what came of it, `baseline` does the same with bare Redis streams, `plot` draws.
"""
