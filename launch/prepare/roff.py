"""Manual pages to plain text: enough of roff's man macros for running text, without running roff."""

import re

# fmt: off
SPECIAL = {
    "aq": "'", "dq": "\"", "rs": "\\", "ha": "^", "ti": "~", "bu": "*", "em": "--", "en": "-", "lq": "\"", "rq": "\"",
    "oq": "'", "cq": "'", "co": "(C)", "mu": "x", "<=": "<=", ">=": ">=", "!=": "!=", "->": "->", "<-": "<-",
    "+-": "+/-", "ga": "`", "hy": "-", "or": "|", "bv": "|", "sc": "§", "mc": "µ", "pc": ".", "de": "°", "Po": "£",
    "Eu": "€", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">", "14": "1/4", "12": "1/2",
    "34": "3/4", "*a": "α", "*b": "β", "*p": "π", "if": "inf", "ss": "ß", ":a": "ä", ":o": "ö", ":u": "ü",
    "'e": "é", "`e": "è", "R": "(R)", "Tm": "(TM)", "sh": "#", "at": "@", "Do": "$", "sl": "/", "fm": "'", "sd": "\"",
}
# fmt: on
ESCAPE = re.compile(
    r"""\\(?:
    f(?:\[[^]]*\]|\(..|.) | s[+-]?(?:\(..|\d) | [vhwlLDoXbN]'[^']*' | [mM]\[[^]]*\] | [zk].?     # fonts, sizes, motions
    | \*(?:\[[^]]*\]|\(..|.) | n(?:\[[^]]*\]|\(..|.) | [&%:/,)|^{}dur!c]    # strings, registers, nothing
    | (?P<dash>-) | (?P<space>[~0\ ]) | (?P<backslash>[e\\]) | (?P<accent>[`'.]) | (?P<tab>t)
    | \[(?P<long>[^]]*)\] | \((?P<pair>..)
    )""",
    re.X,
)
FONTS = {"B", "I", "R", "SM", "SB"}
ALTERNATING = {"BI", "BR", "IB", "IR", "RB", "RI"}
PARAGRAPHS = {"PP", "P", "LP", "HP", "sp", "RS", "RE", "br", "ad", "TP", "TQ"}
LITERAL_ON, LITERAL_OFF = {"nf", "EX", "Vb"}, {"fi", "EE", "Ve"}


def unescape(text):
    """`text` with roff's escapes replaced by what they print."""
    text = text.split('\\"')[0]
    return ESCAPE.sub(printed, text)


def printed(match):
    if match["dash"]:
        return "-"
    if match["space"]:
        return " "
    if match["backslash"]:
        return "\\"
    if match["accent"]:
        return match["accent"]
    if match["tab"]:
        return "\t"
    name = match["long"] or match["pair"]
    if not name:
        return ""
    if re.fullmatch(r"u[0-9A-F]{4,6}", name):
        return chr(int(name[1:], 16))
    return SPECIAL.get(name, "")


def words(line):
    """The arguments of a macro: separated by blanks, quoted where they hold some."""
    found = re.findall(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s"])(?:\\.|\S)*)', line)
    return [quoted.replace('""', '"') if not bare else bare for quoted, bare in found]


class Page:
    """Paragraphs of one manual page, as its lines are read."""

    def __init__(self):
        self.paragraphs, self.line, self.literal, self.tag = [], [], False, False

    def flush(self):
        separator = "\n" if self.literal else " "
        text = separator.join(self.line)
        text = text.rstrip() if self.literal else re.sub(r"\s+", " ", text).strip()
        if text.strip():
            self.paragraphs.append(text)
        self.line = []

    def add(self, text):
        if text.strip() or self.literal:
            self.line.append(text)
        if self.tag:  # the line after .TP is a heading of its own
            self.flush()
            self.tag = False

    def heading(self, text):
        self.flush()
        self.literal = False
        if text:
            self.paragraphs.append(text)

    def set_literal(self, literal):
        self.flush()
        self.literal = literal

    def macro(self, name, rest):
        if name in ("SH", "SS"):
            self.heading(unescape(" ".join(words(rest))))
        elif name in LITERAL_ON | LITERAL_OFF:
            self.set_literal(name in LITERAL_ON)
        elif name in PARAGRAPHS:
            if not self.literal:
                self.flush()
            elif name in ("PP", "P", "sp"):
                self.add("")
            self.tag = name in ("TP", "TQ")
        elif name == "IP":
            self.flush()
            tag = unescape(words(rest)[0]) if words(rest) else ""
            self.add(tag)
        elif name in FONTS:
            self.add(unescape(" ".join(words(rest))))
        elif name in ALTERNATING:
            self.add(unescape("".join(words(rest))))
        elif name in ("UR", "MT"):
            self.add(unescape(rest))

    def text(self):
        self.flush()
        return "\n\n".join(self.paragraphs)


def without(lines, start, end):
    """Leaves out what lies between the macros `start` and `end`."""
    inside = False
    for line in lines:
        if re.match(rf"[.']\s*{start}\b", line):
            inside = True
        elif inside and re.match(rf"[.']\s*{end}", line):
            inside = False
        elif not inside:
            yield line


def plain_text(source):
    """Running text of a manual page: headings and paragraphs separated by blank lines. Tables are left out."""
    source = source.replace("\\\n", "")
    lines = without(without(source.splitlines(), "TS", "TE"), "de", r"\.")
    page = Page()
    for line in lines:
        match = re.match(r"[.']\s*([A-Za-z]*)\s*(.*)", line) if line[:1] in (".", "'") else None
        if match is None:
            page.add(unescape(line))
        elif match[1] not in ("if", "ie", "el"):
            page.macro(match[1], match[2])
    return page.text()
