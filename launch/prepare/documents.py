"""Reads documents from text and JSONL files, plain, gzip or zstd, without trusting them.

Everything is streamed: no more than a few pieces of text are held at a time.
"""

import glob
import gzip
import io
import json
import os
import zlib
from dataclasses import dataclass

from failure import Failure

LINE_LIMIT = 64 << 20  # bytes of one line
RATIO_LIMIT = 200  # decompressed bytes for each compressed one: real text stays below 20
RATIO_FREE = 16 << 20  # decompressed bytes from which the ratio is looked at
PIECE = 4 << 20  # characters handed to the tokenizer at a time
ENDINGS = {".txt": "text", ".text": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass
class Piece:
    """A stretch of one document's text; `last` closes the document."""

    text: str
    last: bool
    place: str  # file:line where it starts


def expand(inputs):
    """The files that a list of files, globs and folders means, in a fixed order. A comma separates as well."""
    names = []
    for item in inputs:
        names += [item] if os.path.exists(item) else item.split(",")
    files = []
    for name in names:
        found = expand_one(name)
        if not found:
            raise Failure("input", name, "no such file" if not glob.has_magic(name) else "matches no file")
        files += found
    return files


def expand_one(name):
    if os.path.isdir(name):
        return sorted(
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if kind_of(file, None) and not file.startswith(".")
        )
    if os.path.exists(name):
        return [name]
    return sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))


def kind_of(path, otherwise="text"):
    """ "text" or "jsonl", from the name without .gz or .zst."""
    stem, ending = os.path.splitext(path)
    if ending in (".gz", ".zst"):
        ending = os.path.splitext(stem)[1]
    return ENDINGS.get(ending.lower(), otherwise)


class RatioGuard(io.RawIOBase):
    """Passes decompressed bytes on and refuses a file that blows up."""

    def __init__(self, read, compressed, path):
        self.read_more, self.compressed, self.path, self.total = read, compressed, path, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            data = self.read_more(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Failure("input", self.path, f"damaged gzip file ({error})") from error
        self.total += len(data)
        if self.total > RATIO_FREE and self.total > RATIO_LIMIT * self.compressed.tell():
            raise Failure(
                "input",
                self.path,
                f"expands to more than {RATIO_LIMIT} times its size",
                "decompress it by hand if you trust it",
            )
        buffer[: len(data)] = data
        return len(data)


class ZstdReader:
    """Decompresses a little input at a time, so that one call cannot return gigabytes, and notices a cut file."""

    STEP = 1024

    def __init__(self, raw, path):
        import zstandard

        self.raw, self.path, self.pending, self.input = raw, path, b"", b""
        self.failure = zstandard.ZstdError
        self.start = lambda: zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self.frame = None

    def __call__(self, size):
        while not self.pending and self.advance():
            pass
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def advance(self):
        """One more step of input; false at the end of the file."""
        if not self.input:
            self.input = self.raw.read(self.STEP)
        if not self.input:
            if self.frame is not None:
                raise Failure("input", self.path, "damaged zstd file (it ends inside a frame)")
            return False
        self.frame = self.frame or self.start()
        try:
            self.pending = self.frame.decompress(self.input)
        except self.failure as error:
            raise Failure("input", self.path, f"damaged zstd file ({error})") from error
        self.input = b""
        if self.frame.eof:
            self.input, self.frame = self.frame.unused_data, None
        return True


class Opened:
    """One input file: a stream of decompressed bytes, and how far we are in the file itself."""

    def __init__(self, path):
        self.path = path
        if not os.path.isfile(path):
            raise Failure("input", path, "not a regular file")
        try:
            self.raw = open(path, "rb")
        except OSError as error:
            raise Failure("input", path, error.strerror or str(error)) from error
        magic = self.raw.read(4)
        self.raw.seek(0)
        self.stream = self.raw
        if magic[:2] == b"\x1f\x8b":
            self.stream = self.guard(gzip.GzipFile(fileobj=self.raw).read)
        elif magic == b"\x28\xb5\x2f\xfd":
            self.stream = self.guard(ZstdReader(self.raw, path))

    def guard(self, read):
        return io.BufferedReader(RatioGuard(read, self.raw, self.path), 1 << 16)

    def lines(self):
        """(place, bytes without the line's end) for each line; a byte order mark is dropped."""
        number = 0
        while True:
            line = self.stream.readline(LINE_LIMIT + 1)
            if not line:
                return
            number += 1
            place = f"{self.path}:{number}"
            if len(line) > LINE_LIMIT:
                raise Failure("input", place, f"line longer than {LINE_LIMIT >> 20} MiB")
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            yield place, line.rstrip(b"\r\n")

    def position(self):
        return self.raw.tell()

    def close(self):
        self.raw.close()


def decoded(line, place):
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure("input", place, f"invalid UTF-8 at byte {error.start + 1} of the line") from error


def json_text(line, place, key):
    """The text of one JSONL object."""
    try:
        record = json.loads(decoded(line, place))
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or a number too long"
        raise Failure("input", place, f"bad JSON ({what})") from error
    if not isinstance(record, dict):
        raise Failure("input", place, "expected a JSON object on each line")
    if key not in record:
        raise Failure(
            "input", place, f'no key "{key}"', f"--json_key names another one of: {', '.join(sorted(record)[:8])}"
        )
    text = record[key]
    if not isinstance(text, str):
        raise Failure("input", place, f'"{key}" is not a string')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Failure("input", place, f'"{key}" holds half of a surrogate pair') from error
    return text


def cut(text, place):
    """A document's text as pieces that end at line ends where words do not continue; most documents are one piece."""
    start = 0
    while len(text) - start > PIECE:
        end = text.rfind("\n", start, start + PIECE) + 1
        while end > start and (text[end : end + 1].isspace() or text[end - 2 : end - 1].isspace()):
            end = text.rfind("\n", start, end - 1) + 1
        end = end if end > start else start + PIECE
        yield Piece(text[start:end], False, place)
        start = end
    yield Piece(text[start:], True, place)


def jsonl_pieces(opened, key):
    for place, line in opened.lines():
        if not line.strip():
            raise Failure("input", place, "empty line, expected a JSON object")
        text = json_text(line, place, key)
        if not text.strip():
            raise Failure("input", place, f'"{key}" is empty')
        yield from cut(text, place)


def text_documents(opened, by_paragraph):
    """(place, text) of each document; a long one comes as several, with None before the next document."""
    gathered, size, start = [], 0, None
    for place, raw in opened.lines():
        line = decoded(raw, place)
        if by_paragraph and not line.strip():
            if gathered:
                yield start, "\n".join(gathered), True
            gathered, size = [], 0
            continue
        if size > PIECE and line[:1].strip() and gathered[-1][-1:].strip():
            yield start, "\n".join(gathered) + "\n", False
            gathered, size = [], 0
        start = start if gathered else place
        gathered.append(line)
        size += len(line) + 1
    if gathered:
        yield start, "\n".join(gathered), True


def text_pieces(opened, by_paragraph):
    empty = True
    for place, text, last in text_documents(opened, by_paragraph):
        empty = empty and not text.strip()
        for piece in cut(text, place):
            yield Piece(piece.text, piece.last and last, piece.place)
    if empty:
        raise Failure("input", f"{opened.path}:1", "empty text")


class Documents:
    """All documents of a list of files. `bytes_read` and `bytes_total` are of the files, for a progress bar."""

    def __init__(self, files, json_key="text", by_paragraph=False):
        self.files, self.json_key, self.by_paragraph = files, json_key, by_paragraph
        self.bytes_total = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
        self.bytes_read = 0

    def __iter__(self):
        self.bytes_read = before = 0
        for path in self.files:
            opened = Opened(path)
            try:
                for piece in self.pieces(opened):
                    self.bytes_read = before + opened.position()
                    yield piece
                before += opened.position()
            finally:
                opened.close()

    def pieces(self, opened):
        if kind_of(opened.path) == "jsonl":
            return jsonl_pieces(opened, self.json_key)
        return text_pieces(opened, self.by_paragraph)
