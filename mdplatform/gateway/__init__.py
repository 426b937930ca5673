"""The gateway: the platform over HTTP and WebSocket, for whoever does not write Python.

`app` puts it together. A request's way: `guard` bounds it, `access` tells who asks (`keys`, `limits`), a module of
`routes` reads it, `switchboard` sends it over the transport and gives what comes back to whoever waits, `rendering`
writes the answer as JSON or Arrow. What goes wrong is told by `problems`; `catalog` tells what can be asked for.
"""
