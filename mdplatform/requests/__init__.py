"""Requests and answers: what strategies ask for and get, checked, and their form on the wire.

`request` has the words of a request; `making` makes one from what a strategy writes (`fields`, `features`) and checks
what came over the wire (`checking`). `answer` is what comes back, `result` one part of it, `tables` its tables. `wire`
has their bytes, `wanted` what a request needs of the lake before it can be answered.
"""
