"""The formula language: own tokens, own parser, a fixed list of operations; nothing is ever given to the interpreter.

1. `tokens` bounds a text and cuts it up; `parser` reads it; `names` gives its names their meanings.
2. `nodes` builds the graph in canonical form, in which equal parts are one; `operations` and `windows` say what each
   part computes.
3. `layout` makes a list of steps of it, `blocks` runs those, and `program` is what is left to call: on columns, or on
   one row.
"""
