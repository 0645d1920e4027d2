"""The one place where errors become text on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dtkpipe.errors import DtkpipeError

BUG, INTERRUPTED = 3, 130


def guarded(work: Callable[[], int]) -> int:
    """Run `work`; return its exit code, or the one of the error that ended it. Nothing raised leaves this function."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = work()
        sys.stdout.flush()
    except DtkpipeError as error:
        show(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it, e.g. `| head`. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _os_error(error)
    except Exception:  # noqa: BLE001 - the last resort of the whole program
        return _bug()
    return code


def show(error: DtkpipeError) -> None:
    """Print an error as the user sees it."""
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _os_error(error: OSError) -> int:
    """Say what the operating system refused where that is the user's business (full disk, rights); else it is a bug."""
    import errno

    hints = {
        errno.ENOSPC: "free some space; the folder $DTKPIPE_CACHE (default ~/.cache/dtkpipe) can be deleted",
        errno.EDQUOT: "free some space; the folder $DTKPIPE_CACHE (default ~/.cache/dtkpipe) can be deleted",
        errno.EACCES: "dtkpipe doctor",
        errno.EPERM: "dtkpipe doctor",
        errno.EROFS: "set DTKPIPE_CACHE and DTKPIPE_STATE to folders that can be written",
    }
    if error.errno not in hints:
        return _bug()
    where = error.filename2 or error.filename or "a file"
    show(DtkpipeError(f"{(error.strerror or 'input/output error').lower()}: {where}", hint=hints[error.errno]))
    return 4 if error.errno in (errno.EACCES, errno.EPERM) else 8


def _bug() -> int:
    """Keep the traceback in a file (it may hold what does not belong on a screen) and print where it is."""
    import tempfile
    import traceback

    from dtkpipe import __version__
    from dtkpipe.resources import state_dir

    story = traceback.format_exc()
    try:
        folder = state_dir(os.environ) / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="bug-", suffix=".log", dir=folder)
    except OSError:
        handle, name = tempfile.mkstemp(prefix="dtkpipe-bug-", suffix=".log")
    with os.fdopen(handle, "w") as log:
        log.write(f"dtkpipe {__version__}, Python {sys.version}\ncommand: {' '.join(sys.argv[:2])}\n\n{story}")
    summary = story.strip().splitlines()[-1][:200]
    show(DtkpipeError("this is a bug in dtkpipe", summary, f"log: {Path(name)}", hint="report it with that log"))
    return BUG
