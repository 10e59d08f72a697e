"""Text to ids and back with a folder's tokenizer, for `echelon generate`.

text.py encode --tokenizer=DIR      each line of stdin, a JSON string → 1,2,3
text.py decode --tokenizer=DIR      each line of stdin, 1,2,3 → a JSON string
"""

import json
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
    made.switch("add_special_tokens", True, "what the tokenizer puts around a text, such as a begin-of-text id (true)")
    options = made.parse(argv)
    tokenizer = load(options.tokenizer).tokenizer
    for line in sys.stdin:
        ids = tokenizer.encode(parse_text(line), add_special_tokens=options.add_special_tokens).ids
        print(",".join(str(id) for id in ids))


def decode(argv):
    made = parser("decode")
    made.switch("skip_special_tokens", True, "leave special tokens out of the text (true)")
    options = made.parse(argv)
    vocabulary = load(options.tokenizer)
    for line in sys.stdin:
        ids = parse_ids(line, vocabulary.size)
        print(json.dumps(vocabulary.tokenizer.decode(ids, skip_special_tokens=options.skip_special_tokens)))


def parse_text(line):
    try:
        text = json.loads(line)
    except ValueError as error:
        raise Failure("input", "stdin", "expected a JSON string in each line") from error
    if not isinstance(text, str):
        raise Failure("input", "stdin", "expected a JSON string in each line")
    return text


def parse_ids(line, size):
    try:
        ids = [int(id) for id in line.split(",") if id.strip()]
    except ValueError as error:
        raise Failure("input", "stdin", "expected numbers with commas between them") from error
    for id in ids:
        if not 0 <= id < size:
            raise Failure("input", "stdin", f"id {id} is not in the vocabulary of {size} tokens")
    return ids


def main(argv):
    commands = {"encode": encode, "decode": decode}
    if not argv or argv[0] not in commands:
        raise Failure("usage", "text", "expected encode or decode")
    commands[argv[0]](argv[1:])


if __name__ == "__main__":
    run(main)
