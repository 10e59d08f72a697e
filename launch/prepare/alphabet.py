"""The characters that a WordPiece vocabulary starts from, in an order that is the same on every run.

The trainer of `tokenizers` numbers continuation characters ("##a") in the order of a hash table with a random seed, and
breaks ties between merges by number: two runs would give two vocabularies.
"""

import unicodedata

import numpy as np

CODE_POINTS = 0x110000
LIMIT = 1000  # most frequent characters; what is rarer becomes [UNK]
BATCH = 1 << 22


def character_counts(texts):
    """How often each code point occurs: [0x110000]."""
    counts = np.zeros(CODE_POINTS, dtype=np.int64)
    for joined in joined_texts(texts):
        counts += np.bincount(np.frombuffer(joined.encode("utf-32-le"), dtype="<u4"), minlength=CODE_POINTS)
    return counts


def joined_texts(texts):
    gathered, size = [], 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= BATCH:
            yield "".join(gathered)
            gathered, size = [], 0
    yield "".join(gathered)


def alphabet(texts, normalizer):
    """The LIMIT most frequent characters of the normalised texts, sorted."""
    counts = character_counts(texts)
    normalised = {}
    for code in np.flatnonzero(counts).tolist():
        for character in normalizer.normalize_str(chr(code)):
            if not character.isspace():
                normalised[character] = normalised.get(character, 0) + int(counts[code])
    return sorted(sorted(normalised, key=lambda character: (-normalised[character], character))[:LIMIT])


def continues_a_word(character):
    """Punctuation and ideographs are words of their own in BERT's pre-tokenizer."""
    ascii_mark = character.isascii() and not character.isalnum()
    return (
        not ascii_mark and not unicodedata.category(character).startswith("P") and not "\u4e00" <= character <= "\u9fff"
    )
