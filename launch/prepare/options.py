"""Command lines in the manner of gflags: --name=value, --name, --noname; underscores and dashes are the same."""

import argparse
import difflib

from failure import Failure


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are Failures of kind usage."""

    def __init__(self, command, **keywords):
        super().__init__(prog=f"echelon {command}", allow_abbrev=False, **keywords)
        self.command, self.switches = command, set()

    def switch(self, name, default, text):
        """--name, --noname, --name=true, --name=false."""
        self.switches.add(name)
        self.add_argument(f"--{name}", type=boolean, default=default, metavar="BOOL", help=text)

    def error(self, message):
        raise Failure("usage", self.command, message, f"see `echelon {self.command} --help`")

    def parse(self, argv):
        values, unknown = self.parse_known_args([self.normalised(argument) for argument in argv])
        if unknown:
            flag = unknown[0].split("=")[0]
            near = difflib.get_close_matches(flag, list(self._option_string_actions), 2)
            what = f'unknown flag "{flag}"' if flag.startswith("-") else f'unexpected argument "{flag}"'
            raise Failure(
                "usage",
                self.command,
                what,
                f"did you mean {' or '.join(near)}?" if near else f"see `echelon {self.command} --help`",
            )
        return values

    def normalised(self, argument):
        if not argument.startswith("--") or argument == "--":
            return argument
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name in self.switches and not equals:
            return f"--{name}=true"
        if name.startswith("no") and name[2:].lstrip("_") in self.switches and not equals:
            return f"--{name[2:].lstrip('_')}=false"
        return f"--{name}{equals}{value}"


def boolean(text):
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f'"{text}" is neither true nor false')
    return values[text.lower()]


def fraction(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value
