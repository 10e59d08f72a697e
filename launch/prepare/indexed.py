"""Token data as Megatron-LM's indexed data set: PREFIX.bin holds the ids, PREFIX.idx where each document lies."""

import os
import struct

import numpy as np

from failure import Failure, storage

MAGIC = b"MMIDIDX\x00\x00"
CODES = {
    np.dtype("u1"): 1,
    np.dtype("i1"): 2,
    np.dtype("<i2"): 3,
    np.dtype("<i4"): 4,
    np.dtype("<i8"): 5,
    np.dtype("<u2"): 8,
}
DTYPES = {code: dtype for dtype, code in CODES.items()}
LONGEST = 2**31 - 1  # a sequence's length is a signed 32-bit number


def dtype_for(vocabulary):
    """16 bits while Megatron does the same; there is no unsigned 32-bit code."""
    return np.dtype("<u2") if vocabulary < 65500 else np.dtype("<i4")


class AtomicFile:
    """A file that appears whole under its name, by one rename after fsync, or not at all."""

    def __init__(self, path):
        self.path, self.temporary = path, f"{path}.tmp-{os.getpid()}"
        try:
            self.file = open(self.temporary, "wb", buffering=1 << 20)
        except OSError as error:
            raise storage(path, error) from error

    def write(self, data):
        try:
            self.file.write(data)
        except OSError as error:
            raise storage(self.path, error) from error

    def commit(self):
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.temporary, self.path)
            sync_folder(os.path.dirname(self.path) or ".")
        except OSError as error:
            raise storage(self.path, error) from error

    def discard(self):
        try:
            self.file.close()
        except OSError:
            pass  # the disk is full: what could not be flushed is thrown away below
        if os.path.exists(self.temporary):
            os.unlink(self.temporary)


def sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Writer:
    """Writes a token data set document by document; only the lengths are held in memory."""

    def __init__(self, prefix, dtype):
        self.prefix, self.dtype = prefix, dtype
        self.lengths, self.boundaries = [], [0]
        self.open_length = self.tokens = 0
        self.bin = AtomicFile(prefix + ".bin")

    def add(self, ids, last):
        """Appends ids [n] to the document that is open; `last` closes it."""
        self.bin.write(ids.astype(self.dtype).tobytes())
        self.tokens += len(ids)
        self.open_length += len(ids)
        while self.open_length > LONGEST:
            self.lengths.append(LONGEST)
            self.open_length -= LONGEST
        if last:
            self.lengths.append(self.open_length)
            self.boundaries.append(len(self.lengths))
            self.open_length = 0

    @property
    def documents(self):
        return len(self.boundaries) - 1

    def commit(self):
        """Both files appear. The old index goes first: with a wrong index ids would still be read."""
        index = AtomicFile(self.prefix + ".idx")
        try:
            self.write_index(index)
            if os.path.exists(self.prefix + ".idx"):
                os.unlink(self.prefix + ".idx")
            self.bin.commit()
            index.commit()
        finally:
            index.discard()

    def write_index(self, index):
        lengths = np.array(self.lengths, dtype="<i4")
        offsets = np.zeros(len(lengths), dtype="<i8")
        np.cumsum(lengths[:-1], out=offsets[1:], dtype="<i8")
        index.write(MAGIC + struct.pack("<QBQQ", 1, CODES[self.dtype], len(lengths), len(self.boundaries)))
        index.write(lengths.tobytes() + (offsets * self.dtype.itemsize).tobytes())
        index.write(np.array(self.boundaries, dtype="<i8").tobytes())

    def discard(self):
        self.bin.discard()


def read(prefix):
    """(ids [N] mapped from PREFIX.bin, document boundaries in tokens [documents + 1]). Refuses an index that lies."""
    path = prefix + ".idx"
    try:
        with open(path, "rb") as file:
            data = file.read()
        size = os.path.getsize(prefix + ".bin")
    except OSError as error:
        raise Failure("input", error.filename, error.strerror, "`echelon prepare` writes both files") from error
    dtype, lengths, boundaries = parse(data, path)
    if int(lengths.sum(dtype=np.int64)) * dtype.itemsize != size:
        raise Failure("input", path, f"its sequences do not fill the {size} bytes of {prefix}.bin")
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ids = np.memmap(prefix + ".bin", dtype=dtype, mode="r") if size else np.zeros(0, dtype)
    return ids, ends[boundaries]


def parse(data, path):
    if data[:9] != MAGIC or len(data) < 34:
        raise Failure("input", path, "not an index of token data")
    version, code, sequences, boundaries = struct.unpack_from("<QBQQ", data, 9)
    if version != 1 or code not in DTYPES:
        raise Failure("input", path, f"version {version} with dtype code {code} is not supported")
    if len(data) != 34 + 12 * sequences + 8 * boundaries:
        raise Failure("input", path, f"{len(data)} bytes, expected {34 + 12 * sequences + 8 * boundaries}")
    lengths = np.frombuffer(data, "<i4", sequences, 34)
    offsets = np.frombuffer(data, "<i8", sequences, 34 + 4 * sequences)
    edges = np.frombuffer(data, "<i8", boundaries, 34 + 12 * sequences)
    dtype = DTYPES[code]
    expected = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[:-1] * dtype.itemsize
    if (lengths < 0).any() or not np.array_equal(offsets, expected):
        raise Failure("input", path, "sequences do not follow each other")
    if boundaries < 1 or edges[0] != 0 or edges[-1] != sequences or (np.diff(edges) < 0).any():
        raise Failure("input", path, "document boundaries do not cover the sequences in order")
    return dtype, lengths, edges
