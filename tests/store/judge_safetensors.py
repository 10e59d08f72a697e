"""Compares what Echelon writes and refuses with the safetensors package and with TensorBoard's own reader.

usage: judge_safetensors.py STORE_FILE_TOOL [HOSTILE_CORPUS]
"""

import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

import numpy
import safetensors
import safetensors.numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def tool(program, *arguments, text=None):
    command = [program, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", check=True)
    return done.stdout


def random_tensors(rng):
    """Tensors of many types and shapes, with awkward names."""
    types = ["float64", "float32", "float16", "bool", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32"]
    tensors = {}
    for _ in range(rng.randint(0, 30)):
        name = rng.choice(["layers.%d.weight", "ü%d", "a\"%d", "back\\%d", "模型%d", "%d"]) % rng.randint(0, 99)
        shape = [rng.randint(0, 5) for _ in range(rng.randint(0, 4))]
        values = numpy.random.default_rng(rng.randint(0, 9)).integers(0, 100, shape)
        tensors[name] = numpy.array(values).astype(rng.choice(types))
    return tensors


def judge_bytes(program, folder):
    """Written by the package, read and written again by us: the same bytes."""
    rng = random.Random(1)
    for trial in range(60):
        theirs, ours = os.path.join(folder, "theirs"), os.path.join(folder, "ours")
        metadata = rng.choice([None, {"format": "pt"}, {"k\"ey": "line\nbreak ü"}])
        safetensors.numpy.save_file(random_tensors(rng), theirs, metadata=metadata)
        tool(program, "copy", theirs, ours)
        with open(theirs, "rb") as a, open(ours, "rb") as b:
            assert a.read() == b.read(), f"trial {trial}: files differ"


def file_of(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def malformed():
    """Files that both must refuse, by name."""
    plain = json.dumps({"a": entry()})
    pair = lambda x, y: json.dumps({"a": entry(offsets=x), "b": entry(offsets=y)})
    return {
        "empty": b"",
        "seven bytes": b"1234567",
        "length bomb": file_of("{}", length=2**63),
        "length over limit": file_of("{}", length=10**8 + 1),
        "header beyond the file": file_of("{}", length=3),
        "empty header": file_of(""),
        "not an object": file_of("[]"),
        "leading space": file_of(" " + plain, bytes(4)),
        "not UTF-8": file_of(b'{"\xff":{}}'),
        "not JSON": file_of('{"a":'),
        "zero byte": file_of(b"{}\0"),
        "name twice": file_of("{%s,%s}" % (plain[1:-1], plain[1:-1]), bytes(4)),
        "dtype twice": file_of('{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}', bytes(4)),
        "missing field": file_of('{"a":{"dtype":"U8","shape":[4]}}', bytes(4)),
        "unknown dtype": file_of(json.dumps({"a": entry("F31")}), bytes(4)),
        "negative size": file_of(json.dumps({"a": entry(shape=(-4,))}), bytes(4)),
        "float size": file_of('{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}', bytes(4)),
        "overflow": file_of(json.dumps({"a": entry(shape=(2**32, 2**32), offsets=(0, 0))})),
        "half a byte": file_of(json.dumps({"a": entry("F4", (3,), (0, 2))}), bytes(2)),
        "wrong offsets": file_of(json.dumps({"a": entry(shape=(5,))}), bytes(4)),
        "does not begin at zero": file_of(json.dumps({"a": entry(offsets=(4, 8))}), bytes(8)),
        "gap": file_of(pair((0, 4), (5, 9)), bytes(9)),
        "overlap": file_of(pair((0, 4), (3, 7)), bytes(7)),
        "same bytes": file_of(pair((0, 4), (0, 4)), bytes(4)),
        "tail": file_of(plain, bytes(5)),
        "truncated": file_of(plain, bytes(3)),
        "metadata of numbers": file_of('{"__metadata__":{"a":1}}'),
    }


# Refused by us alone: the format says that a header begins with {, and of two tensors of a name one would be hidden.
STRICTER = {"leading space", "name twice"}


def package_accepts(path):
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            file.keys()
        return True
    except Exception:
        return False


def write_all(folder, files):
    paths = {}
    for number, (name, content) in enumerate(files.items()):
        paths[name] = os.path.join(folder, f"hostile{number}")
        with open(paths[name], "wb") as file:
            file.write(content)
    return paths


def verdicts(program, paths):
    lines = tool(program, "check", text="".join(path + "\n" for path in paths)).splitlines()
    assert len(lines) == len(paths)
    return [line == "accepted" for line in lines]


def judge_malformed(program, folder):
    paths = write_all(folder, malformed())
    for (name, path), accepted in zip(paths.items(), verdicts(program, paths.values())):
        assert not accepted, f"we accept: {name}"
        assert package_accepts(path) == (name in STRICTER), f"not the package's expected verdict: {name}"


def judge_mutations(program, folder):
    """Random damage to a good file: whatever we accept, the package accepts."""
    rng = random.Random(2)
    header = {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("F32", (2, 1), (4, 12))}
    good = file_of(json.dumps(header), bytes(12))
    likely = b'0123456789{}[]":, -.eU8F\x00\xff'
    files = {}
    for trial in range(1500):
        content = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(good))] = rng.choice(likely) if rng.random() < 0.8 else rng.randrange(256)
        files[f"mutation {trial}"] = bytes(content)
    paths = write_all(folder, files)
    both = 0
    for (name, path), accepted in zip(paths.items(), verdicts(program, paths.values())):
        theirs = package_accepts(path)
        assert theirs or not accepted, f"{name}: we accept what the package refuses: {files[name]!r}"
        both += accepted and theirs
    assert both > 20, "too few mutations were harmless: the comparison says little"


# What we refuse and the package accepts, by our sentence, with the reason.
DIFFERENCES = {
    r"header does not begin with \{": "the format says that it does; the package's parser skips white space",
    r"tensor \".*\" stands twice": "one of the two would be hidden; the package keeps the last",
    r"__metadata__ has \".*\" twice": "the same",
    r"control characters in its name": "names stand in messages and file names of others",
    r"a tensor's name is longer than 4096 bytes": "no model has one; messages must stay short",
    r"has more than 64 dimensions": "no tensor has; the package has no limit",
}


def reason_of(sentence):
    return next((pattern for pattern in DIFFERENCES if re.search(pattern, sentence)), None)


def corpus_with_mutations(program, folder):
    """Every attack and good file of the corpus, and seeded damage to each."""
    subprocess.run([program, folder], check=True)
    folder = os.path.join(folder, "safetensors")
    rng, files = random.Random(3), {}
    for name in sorted(os.listdir(folder), key=int):
        with open(os.path.join(folder, name), "rb") as file:
            files[name] = content = file.read()
        for trial in range(40 if 8 < len(content) < 4096 else 0):
            damaged = bytearray(content)
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(damaged))
                choice = rng.random()
                if choice < 0.6:
                    damaged[at] = rng.choice(b'0123456789{}[]":, -.eUFIabx')
                elif choice < 0.8:
                    del damaged[at]
                else:
                    damaged.insert(at, rng.randrange(256))
            # The length stays true more often than chance would have it.
            if rng.random() < 0.7 and len(damaged) >= 8 and len(damaged) != len(content):
                length = struct.unpack("<Q", content[:8])[0] + len(damaged) - len(content)
                damaged[:8] = struct.pack("<Q", length % 2**64)
            files[f"{name}.{trial}"] = bytes(damaged)
    return files


def judge_corpus(program, corpus_program, folder):
    """Verdicts agree, or the difference stands in the list, and none stands there for nothing."""
    files = corpus_with_mutations(corpus_program, os.path.join(folder, "corpus"))
    paths = write_all(folder, files)
    lines = tool(program, "check", text="".join(path + "\n" for path in paths.values())).splitlines()
    used, both = set(), 0
    for (name, path), line in zip(paths.items(), lines):
        ours, theirs = line == "accepted", package_accepts(path)
        assert theirs or not ours, f"{name}: we accept what the package refuses: {files[name]!r}"
        both += ours and theirs
        if theirs and not ours:
            reason = reason_of(line)
            assert reason, f"{name}: the package accepts what we refuse: {line}: {files[name][:300]!r}"
            used.add(reason)
    assert used == set(DIFFERENCES), f"differences that are none: {set(DIFFERENCES) - used}"
    assert both > 20, "too few mutations were harmless: the comparison says little"
    print(f"{len(files)} files: {both} accepted by both, {len(used)} listed differences")


def judge_events(program, folder):
    """TensorBoard reads our scalars, a resumed run replaces the steps it repeats, a torn tail loads."""
    events = os.path.join(folder, "events")
    tool(program, "events", events, "1", "10")
    path = tool(program, "events", events, "8", "12").strip()
    with open(path, "ab") as file:
        file.write(b"\x1a\0\0\0\0")
    accumulator = EventAccumulator(events)
    accumulator.Reload()
    assert set(accumulator.Tags()["scalars"]) == {"train/loss", "train/lr"}
    losses = accumulator.Scalars("train/loss")
    assert [point.step for point in losses] == list(range(1, 13)), [point.step for point in losses]
    for point in losses:
        assert point.value == numpy.float32(1 / point.step)


def main():
    program = sys.argv[1]
    for judge in [judge_bytes, judge_malformed, judge_mutations, judge_events]:
        with tempfile.TemporaryDirectory() as folder:
            judge(program, folder)
        print(f"{judge.__name__}: agreed")
    if len(sys.argv) > 2:
        with tempfile.TemporaryDirectory() as folder:
            judge_corpus(program, sys.argv[2], folder)


if __name__ == "__main__":
    main()
