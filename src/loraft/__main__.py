"""The `loraft` command, and `python -m loraft`."""

import os
import sys

from loraft.cli import signals


def main() -> None:
    """Runs the command line; signals count from before the imports, which take a while."""
    try:
        with signals.caught():
            from loraft.cli import app

            app.main()
    except SystemExit as stop:
        if stop.code in signals.EXIT_CODES:
            # Python's own end would wait for a thread that reads stdin, and after an interrupt inside an import it
            # would exit by SIGINT.
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(int(stop.code))
        raise


if __name__ == "__main__":
    main()
