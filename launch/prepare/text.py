"""Text to ids and back with a folder's tokenizer, for `echelon generate`.

text.py encode --tokenizer=DIR [--text=TEXT]      text (or stdin) → "1,2,3"
text.py decode --tokenizer=DIR [--ids=1,2,3]      ids (or lines of ids on stdin) → text
"""

import sys

from failure import Failure, require, run

require("tokenizers")

from options import Parser  # noqa: E402
from vocabulary import load  # noqa: E402


def parser(command):
    made = Parser(f"text {command}", description=__doc__)
    made.add_argument("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    return made


def encode(argv):
    made = parser("encode")
    made.add_argument("--text", default=None, help="the text; absent: stdin")
    made.switch("add_special_tokens", True, "what the tokenizer puts around a text, such as a begin-of-text id (true)")
    options = made.parse(argv)
    text = sys.stdin.buffer.read() if options.text is None else options.text.encode("utf-8", "surrogateescape")
    try:
        text = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure("input", "--text", f"invalid UTF-8 at byte {error.start + 1}") from error
    ids = load(options.tokenizer).tokenizer.encode(text, add_special_tokens=options.add_special_tokens).ids
    print(",".join(str(id) for id in ids))


def decode(argv):
    made = parser("decode")
    made.add_argument("--ids", default=None, metavar="1,2,3", help="the ids; absent: one list on each line of stdin")
    made.switch("skip_special_tokens", True, "leave special tokens out of the text (true)")
    options = made.parse(argv)
    vocabulary = load(options.tokenizer)
    for line in sys.stdin if options.ids is None else [options.ids]:
        ids = parse_ids(line, vocabulary.size)
        print(vocabulary.tokenizer.decode(ids, skip_special_tokens=options.skip_special_tokens), flush=True)


def parse_ids(line, size):
    try:
        ids = [int(id) for id in line.split(",") if id.strip()]
    except ValueError as error:
        raise Failure("usage", "--ids", "expected numbers with commas between them") from error
    for id in ids:
        if not 0 <= id < size:
            raise Failure("input", "--ids", f"id {id} is not in the vocabulary of {size} tokens")
    return ids


def main(argv):
    commands = {"encode": encode, "decode": decode}
    if not argv or argv[0] not in commands:
        raise Failure("usage", "text", "expected encode or decode")
    commands[argv[0]](argv[1:])


if __name__ == "__main__":
    run(main)
