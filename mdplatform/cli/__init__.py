"""The command line: `mdplatform COMMAND`. One file a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

from mdplatform.cli.bench import bench
from mdplatform.cli.bridge import bridge
from mdplatform.cli.demo import demo
from mdplatform.cli.doctor import doctor
from mdplatform.cli.features import features
from mdplatform.cli.feed import feed
from mdplatform.cli.formula import formula
from mdplatform.cli.frame import app, main
from mdplatform.cli.gateway import gateway
from mdplatform.cli.ingest import ingest
from mdplatform.cli.keys import keys
from mdplatform.cli.lookahead import check_lookahead
from mdplatform.cli.materialize import materialize
from mdplatform.cli.read import read
from mdplatform.cli.request import request
from mdplatform.cli.requests import requests
from mdplatform.cli.sql import sql
from mdplatform.cli.ui import ui
from mdplatform.cli.watch import watch
from mdplatform.cli.worker import worker

_COMMANDS = (
    ingest, materialize, read, features, check_lookahead, sql, ui, doctor, demo,
    request, worker, bridge, gateway, feed, watch,
)  # fmt: skip
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(formula, name="formula")
app.add_typer(keys, name="keys")
app.add_typer(requests, name="requests")
app.add_typer(bench, name="bench")

__all__ = ["main"]
