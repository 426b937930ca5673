"""The program `mdplatform`, also as `python -m mdplatform` where the script is not on the path."""

from __future__ import annotations

import signal

from mdplatform.interrupts import leave_at_once


def main() -> None:
    """Run the command line; Ctrl-C while that is imported ends it with a line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        leave_at_once()
    from mdplatform.cli import main as run

    run()


if __name__ == "__main__":
    main()
