"""Real text from Debian's packages, as JSONL.

The King James Bible by chapter, the manual pages of Linux by page, the Debian reference and the developers'
reference by section.

    corpus.py --out=corpus/text.jsonl [--root=/]

Nothing is copied from elsewhere and nothing of it is ours: the texts stay under their own licences on this machine.
"""

import gzip
import hashlib
import json
import os
import re
import subprocess

from failure import Failure, run
from indexed import AtomicFile
from options import Parser
from roff import plain_text

SHORTEST = 200  # characters; shorter pages are stubs and redirections
LEAST = 5_000_000  # bytes of text that a corpus must have
SECTIONS = ("man2", "man3", "man4", "man5", "man7", "man8")
MANUAL_PACKAGES = ("manpages", "manpages-dev")
VERSE = re.compile(r"([1-4]?[A-Za-z]+)(\d+):(\d+) (.*)")
HEADING = re.compile(r"(?m)^(?:Chapter )?(\d+(?:\.\d+)*)\. \S.*$")


def bible(root):
    """(name, text) of each chapter."""
    data = os.path.join(root, "usr/lib")
    command = [os.path.join(root, "usr/bin/bible"), "-p", data, "-f", "Gen1:1-Rev22:21"]
    try:
        output = subprocess.run(command, capture_output=True, check=True, text=True, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure("input", command[0], "cannot print the Bible", "install bible-kjv and bible-kjv-text") from error
    chapters = {}
    for line in output.splitlines():
        match = VERSE.match(line)
        if match:
            chapters.setdefault(f"{match[1]} {match[2]}", []).append(match[4].strip())
    return [(f"kjv {name}", "\n".join(verses)) for name, verses in chapters.items()]


def manual_files(root):
    """Pages of Linux's own manual only, so that the corpus does not depend on what else is installed."""
    listed = subprocess.run(["dpkg-query", "-L", *MANUAL_PACKAGES], capture_output=True, text=True, check=False).stdout
    wanted = set(listed.split("\n"))
    for section in SECTIONS:
        folder = os.path.join(root, "usr/share/man", section)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if root != "/" or os.path.join("/usr/share/man", section, name) in wanted:
                yield os.path.join(folder, name)


def manual_pages(root):
    pages = []
    for path in manual_files(root):
        if os.path.islink(path) or not path.endswith(".gz"):
            continue
        with gzip.open(path, "rt", encoding="utf-8", errors="strict") as file:
            source = file.read()
        if not source.startswith(".so "):
            pages.append((f"man {os.path.basename(path)[:-3]}", plain_text(source)))
    return pages


def book(root, path, name):
    """(name, text) of each numbered section of a book in plain text."""
    try:
        with gzip.open(os.path.join(root, path), "rt", encoding="utf-8") as file:
            text = file.read().replace("\xa0", " ")
    except OSError as error:
        raise Failure(
            "input", path, error.strerror or str(error), "install debian-reference-en and developers-reference"
        ) from error
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    # The table of contents names every section before it comes: the later one of a number is the text.
    sections = {heading[1]: text[heading.start() : end] for heading, end in zip(headings, ends)}
    return [(f"{name} {number}", unindented(section)) for number, section in sections.items()]


def unindented(text):
    """A section without the margin that a terminal page has."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^ {1,4}|[ \t]+$", "", text)).strip()


def distinct(documents):
    """Without stubs and repetitions, in an order that mixes the sources and is the same everywhere."""
    chosen = {}
    for source, name, text in documents:
        if len(text) >= SHORTEST:
            key = hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()
            chosen.setdefault(key, {"text": text, "source": source, "name": name})
    return [chosen[key] for key in sorted(chosen)]


def gather(root):
    sources = {
        "bible": bible(root),
        "manual": manual_pages(root),
        "debian-reference": book(root, "usr/share/debian-reference/debian-reference.en.txt.gz", "reference"),
        "developers-reference": book(root, "usr/share/developers-reference/developers-reference.txt.gz", "developers"),
    }
    return [(source, name, text) for source, found in sources.items() for name, text in found]


def write(documents, path):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    file = AtomicFile(path)
    try:
        for document in documents:
            file.write((json.dumps(document, ensure_ascii=False) + "\n").encode())
        file.commit()
    finally:
        file.discard()


def main(argv):
    parser = Parser("corpus", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, metavar="FILE", help="JSONL file to write")
    parser.add_argument("--root", default="/", metavar="DIR", help="where the packages are unpacked (/)")
    options = parser.parse(argv)
    documents = distinct(gather(options.root))
    sizes = {}
    for document in documents:
        sizes[document["source"]] = sizes.get(document["source"], 0) + len(document["text"].encode())
    total = sum(sizes.values())
    if total < LEAST:
        raise Failure(
            "input", options.root, f"only {total:,} bytes of text ({sizes})", "are the packages' manual pages there?"
        )
    write(documents, options.out)
    print(
        f"{options.out}: {len(documents):,} documents, {total:,} bytes of text: "
        + ", ".join(f"{source} {size:,}" for source, size in sizes.items())
    )


if __name__ == "__main__":
    run(main)
