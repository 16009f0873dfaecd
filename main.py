"""Read the command line, then start what it asks for."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.runtime import prepare_process

if TYPE_CHECKING:
    from app.options import Options

prepare_process()  # before anything imports torch


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; the result is its exit code: 0 = done, 1 = the user's mistake."""
    from app.options import parse
    from render.errors import UserError

    debug = "--debug" in (sys.argv[1:] if args is None else args)
    try:
        return _dispatch(parse(args))
    except UserError as error:
        if debug:
            raise
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped at once; the last checkpoint is whole.", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        from app.runtime import error_sentence

        print(f"Error: {error_sentence(error)}", file=sys.stderr)
        return 1


def _dispatch(options: Options) -> int:
    if options.version:
        import render

        print(f"kbuffers {render.__version__}")
        return 0
    if options.doctor:
        from app.doctor import examine

        return examine(options)

    from app import headless

    if not options.headless and not options.eval and options.render is None:
        from app.native import NoWindow, start

        try:
            native = start()
        except NoWindow as error:
            print(f"{error} Continuing headless.")
        else:
            from app import window

            return window.run(options, native)
    return headless.run(options)


def _leave(number: int, frame: object) -> None:
    """Ctrl-C while modules load or the program ends: there is nothing to save."""
    os._exit(130)


def run() -> None:
    """The command ``kbuffers``, and ``python main.py``."""
    # An exception in the middle of an import of torch would leave as some other error.
    signal.signal(signal.SIGINT, _leave)
    code = main()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # a closed pipe
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # everything is saved; torch alone takes a second or two to shut down


if __name__ == "__main__":
    run()
