"""Errors that end a tool with one sentence and the exit code of its kind."""

import errno
import importlib.util
import signal
import sys

EXIT_CODES = {"internal": 1, "usage": 2, "recipe": 3, "input": 4, "storage": 5, "numerics": 7, "memory": 8}
STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}


class Failure(Exception):
    """`echelon: <kind>: <place>: <what>; <remedy>` and the exit code that belongs to the kind."""

    def __init__(self, kind, place, what, remedy=""):
        super().__init__(what)
        self.kind, self.place, self.what, self.remedy = kind, str(place), what, remedy

    def sentence(self):
        text = f"echelon: {self.kind}: {self.place}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")
        return printable(text)


def printable(text):
    """`text` on one line: a hostile file name or document cannot forge a line of the log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def storage(place, error):
    """A Failure for an OSError met while writing `place`."""
    remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return Failure("storage", place, error.strerror or str(error), remedy)


def require(*modules):
    """Ends the program in one sentence when Python lacks a package."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        failure = Failure(
            "recipe",
            sys.executable,
            f"lacks the Python packages {', '.join(missing)}",
            "run ./quickstart, or pip install -r requirements.txt",
        )
        print(failure.sentence(), file=sys.stderr)
        sys.exit(EXIT_CODES["recipe"])


def stop(signum, _frame):
    raise SystemExit(128 + signum)


def run(main):
    """Calls `main(argv)`; whatever it raises becomes the last line on stderr and the exit code."""
    signal.signal(signal.SIGTERM, stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Failure as failure:
        print(failure.sentence(), file=sys.stderr)
        sys.exit(EXIT_CODES[failure.kind])
    except MemoryError:
        print("echelon: memory: prepare: out of memory; use more and smaller input files", file=sys.stderr)
        sys.exit(EXIT_CODES["memory"])
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        kind = "storage" if error.errno in STORAGE_ERRNOS else "input"
        failure = Failure(kind, error.filename or "prepare", error.strerror or str(error))
        print(failure.sentence(), file=sys.stderr)
        sys.exit(EXIT_CODES[kind])
