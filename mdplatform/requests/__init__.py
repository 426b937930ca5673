"""Requests and answers: what strategies ask for and get, checked, and their form on the wire.

`request` has the words of a request, `making` makes and checks one from what a strategy writes, `answer` is what comes
back, `wire` their bytes, `needs` what must be in the lake before one can be answered.
"""
