"""`mdplatform gateway`: the platform over HTTP and WebSocket."""

from __future__ import annotations

from typing import Annotated

import typer

from mdplatform.cli.frame import err


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of MDPLATFORM_GATEWAY_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)
    ] = None,
) -> None:
    """Serve requests, features and the catalogue over HTTP and WebSocket; Ctrl-C ends it.

    Once it listens it prints one line of JSON on standard output. Requests are answered by workers: start one with
    `mdplatform worker`. Clients show an API key, made by `mdplatform keys create`.

    Examples:

        mdplatform gateway

        mdplatform gateway --host 0.0.0.0 --port 9000
    """
    from mdplatform.gateway.keys import KeyStore
    from mdplatform.gateway.server import run
    from mdplatform.settings import Settings

    settings = Settings.load(gateway_host=host, gateway_port=port)
    if settings.gateway_keys and not any(not each.revoked_at for each in KeyStore(settings.home).every()):
        err.print(
            "note: nobody has an API key yet: mdplatform keys create --name NAME", style="yellow", highlight=False
        )
    run(settings)
