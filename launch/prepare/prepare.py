"""`echelon prepare`: text to token ids.

Reads text and JSONL files, trains or takes a tokenizer, and writes PREFIX.bin, PREFIX.idx, PREFIX.meta.json and the
tokenizer's files in PREFIX.tokenizer/. docs/formats.md says what is in them.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

from failure import Failure, require, run, storage

require("numpy", "tokenizers", "tqdm", "zstandard")

import numpy as np  # noqa: E402

import vocabulary as vocabularies  # noqa: E402
from documents import Documents, expand  # noqa: E402
from indexed import AtomicFile, Writer, dtype_for, read  # noqa: E402
from ngrams import Bigram, entropy  # noqa: E402
from options import Parser, fraction  # noqa: E402

BATCH = 4 << 20  # characters that are encoded together, over all cores
BIGRAM_TOKENS = 50_000_000  # training tokens that the bigram baseline counts; its memory grows with them


def arguments(argv):
    parser = Parser("prepare", description="Turns text into token ids that recipes train on.")
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="FILES",
        help="files, globs or folders, comma-separated: .txt (one document a file), .jsonl; also .gz, .zst",
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="WHICH",
        help="a Hugging Face folder, train:bpe:SIZE (byte-level) or train:wordpiece:SIZE",
    )
    parser.add_argument(
        "--out", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx, .meta.json, .tokenizer/"
    )
    parser.add_argument("--json_key", default="text", metavar="KEY", help="what of a JSONL object is the text (text)")
    parser.switch("append_eos", True, "end each document with the end-of-text or separator id (true)")
    parser.switch("paragraphs", False, "in .txt files a blank line ends a document (false: one document a file)")
    parser.switch("lowercase", True, "of a new wordpiece vocabulary (true)")
    parser.add_argument(
        "--heldout",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="share of the documents that is held out, chosen by a hash of their text (0)",
    )
    parser.add_argument(
        "--heldout_input", action="append", metavar="FILES", help="files to hold out, instead of --heldout"
    )
    parser.add_argument(
        "--heldout_out", default="", metavar="PREFIX", help="where the held-out part goes (PREFIX_heldout)"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="encoding threads (0: all cores)")
    options = parser.parse(argv)
    if options.heldout and options.heldout_input:
        raise Failure("usage", "--heldout", "given together with --heldout_input", "choose one")
    if options.threads < 0:
        raise Failure("usage", "--threads", "a negative number")
    options.heldout_out = options.heldout_out or options.out + "_heldout"
    if os.path.abspath(options.heldout_out) == os.path.abspath(options.out):
        raise Failure("usage", "--heldout_out", "the same prefix as --out")
    return options


class Progress:
    """A bar over the bytes of the input files; silent where stderr is not a terminal."""

    def __init__(self, what, documents):
        from tqdm import tqdm

        self.documents = documents
        self.bar = tqdm(total=documents.bytes_total, desc=what, unit="B", unit_scale=True, disable=None, leave=False)

    def watch(self, pieces):
        for piece in pieces:
            yield piece
            self.bar.update(self.documents.bytes_read - self.bar.n)
        self.bar.close()


def is_held_out(piece, share):
    """Decided by a document's first piece of text alone: the same in any order and with any tokenizer."""
    digest = hashlib.blake2b(piece.text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def split(pieces, share):
    """(piece, whether its document is held out) for each piece."""
    first, held_out = True, False
    for piece in pieces:
        if first:
            held_out = is_held_out(piece, share)
        first = piece.last
        yield piece, held_out


def batches(routed):
    batch, size = [], 0
    for item in routed:
        batch.append(item)
        size += len(item[0].text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_ahead(items):
    """The same items, the next one being read while this one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(next, items, None)
        while (item := ahead.result()) is not None:
            ahead = reader.submit(next, items, None)
            yield item


class Part:
    """One token data set being written: the training part or the held-out part."""

    def __init__(self, prefix, vocabulary, append_eos):
        self.prefix, self.vocabulary, self.append_eos = prefix, vocabulary, append_eos
        self.counts = np.zeros(vocabulary.size, dtype=np.int64)
        self.bytes = 0
        self.writer = Writer(prefix, dtype_for(vocabulary.size))

    def add(self, piece, ids):
        if piece.last and self.append_eos:
            ids = ids + [self.vocabulary.end_id]
        ids = np.array(ids, dtype=np.int64)
        np.add.at(self.counts, ids, 1)
        self.bytes += len(piece.text.encode())
        self.writer.add(ids, piece.last)

    def summary(self):
        return {
            "documents": self.writer.documents,
            "tokens": self.writer.tokens,
            "bytes": self.bytes,
            "unigram_entropy": entropy(self.counts),
        }

    def meta(self):
        """What models and sources need to know; docs/formats.md lists the keys."""
        ids = self.vocabulary.ids
        seen = np.flatnonzero(self.counts)
        return {
            "version": 1,
            "vocabulary_size": self.vocabulary.size,
            "largest_id": int(seen[-1]) if len(seen) else -1,
            **{f"{role}_id": ids.get(role) for role in ("pad", "bos", "eos", "unk", "cls", "sep", "mask")},
            "special_ids": self.vocabulary.special_ids,
            "document_end_id": self.vocabulary.end_id if self.append_eos else None,
            "statistics": self.summary(),
        }


def choose_append_eos(requested, vocabulary):
    if vocabulary.end_id is None and requested:
        raise Failure(
            "input",
            vocabulary.folder,
            "its tokenizer has neither an end-of-text nor a separator token",
            "add --append_eos=false",
        )
    return requested


def routed_pieces(what, files, options):
    """(piece, whether it is held out), with a progress bar."""
    documents = Documents(files, options.json_key, options.paragraphs)
    return split(Progress(what, documents).watch(documents), options.heldout)


def make_vocabulary(options, files):
    spec = vocabularies.parse_spec(options.tokenizer)
    if not spec:
        return vocabularies.load(options.tokenizer)

    def texts():
        return (piece.text for piece, held_out in routed_pieces("reading", files, options) if not held_out)

    return vocabularies.train(*spec, texts, options.lowercase)


def encode(files, parts, options):
    """Sends each document to parts[0], or to parts[1] where it is held out."""
    for batch in read_ahead(batches(routed_pieces("encoding", files, options))):
        texts = [piece.text for piece, _ in batch]
        encoded = parts[0].vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (piece, held_out), encoding in zip(batch, encoded):
            parts[held_out].add(piece, encoding.ids)


def require_documents(parts, options):
    for part in parts:
        if part.writer.documents == 0:
            raise Failure(
                "input",
                options.input[0],
                f"no document falls to {part.prefix}",
                "give more documents or another --heldout",
            )


def baselines(options, vocabulary, part):
    """Entropies of the held-out part that a model is compared with."""
    train, heldout = read(options.out)[0][:BIGRAM_TOKENS], read(options.heldout_out)[0]
    return {**part.summary(), "bigram_cross_entropy": Bigram(train, vocabulary.size).cross_entropy(heldout)}


def relative(path, meta_path):
    return os.path.relpath(path, os.path.dirname(os.path.abspath(meta_path)))


def write_meta(prefix, value):
    file = AtomicFile(prefix + ".meta.json")
    try:
        file.write((json.dumps(value, indent=2) + "\n").encode())
        file.commit()
    finally:
        file.discard()


def make_folder(prefix):
    folder = os.path.dirname(prefix) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise storage(folder, error) from error


def commit(parts, vocabulary, options):
    """Everything appears; the meta files come last and say that the rest is whole."""
    prefixes = [part.prefix for part in parts]
    for prefix in prefixes:
        if os.path.exists(prefix + ".meta.json"):
            os.unlink(prefix + ".meta.json")
    folder = options.out + ".tokenizer"
    vocabularies.save(vocabulary, folder)
    metas = []
    for part in parts:
        part.writer.commit()
        metas.append({**part.meta(), "tokenizer": relative(folder, part.prefix)})
    if len(parts) == 2:
        metas[1]["statistics"] = baselines(options, vocabulary, parts[1])
        rule = {"input": options.heldout_input} if options.heldout_input else {"fraction": options.heldout}
        metas[0]["heldout"] = {**rule, "path": relative(options.heldout_out, options.out), **metas[1]["statistics"]}
    for prefix, meta in reversed(list(zip(prefixes, metas))):
        write_meta(prefix, meta)
    return metas


def report(parts, metas, vocabulary):
    for part, meta in zip(parts, metas):
        numbers = meta["statistics"]
        line = (
            f"{part.prefix}.bin: {numbers['documents']:,} documents, {numbers['tokens']:,} tokens from "
            f"{numbers['bytes']:,} bytes, vocabulary {vocabulary.size:,}, unigram entropy "
            f"{numbers['unigram_entropy']:.4f}"
        )
        if "bigram_cross_entropy" in numbers:
            line += f", bigram cross-entropy {numbers['bigram_cross_entropy']:.4f}"
        print(line)


def main(argv):
    options = arguments(argv)
    if options.threads:
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    files = expand(options.input)
    held_out_files = expand(options.heldout_input or [])
    vocabulary = make_vocabulary(options, files)
    append_eos = choose_append_eos(options.append_eos, vocabulary)
    vocabulary.tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a document is text, not an end
    prefixes = [options.out]
    if options.heldout or options.heldout_input:
        prefixes.append(options.heldout_out)
    parts = []
    try:
        for prefix in prefixes:
            make_folder(prefix)
            parts.append(Part(prefix, vocabulary, append_eos))
        encode(files, parts, options)
        if held_out_files:
            encode(held_out_files, parts[1:], options)
        require_documents(parts, options)
        report(parts, commit(parts, vocabulary, options), vocabulary)
    finally:
        for part in parts:
            part.writer.discard()


if __name__ == "__main__":
    run(main)
