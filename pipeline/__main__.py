"""``python -m pipeline``, and the command ``pipeline``: the program as a process of its own."""

import os
import sys

from pipeline.cli import main

__all__ = ["run"]

_INTERRUPTED = 130


def run() -> int:
    """Run the command line and give the exit code of the process."""
    code = main()
    if code == _INTERRUPTED:
        # Where a C library was running Python when Ctrl-C came (an import of torch, say),
        # Python would end itself by that signal although it was handled. All is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
