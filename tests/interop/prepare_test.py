"""`echelon prepare`: what it writes, who reads it, and what it says to bad input."""

import gzip
import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

SOURCE = Path(os.environ.get("ECHELON_SOURCE", Path(__file__).resolve().parents[2]))
TOOLS = SOURCE / "launch" / "prepare"
sys.path.insert(0, str(TOOLS))

import documents as reading  # noqa: E402
import indexed  # noqa: E402
import ngrams  # noqa: E402
from failure import Failure  # noqa: E402
from roff import plain_text  # noqa: E402

WORDS = "In the beginning God created the heaven and the earth and the spirit moved upon the face of the waters".split()


def sentence(seed, length=30):
    random = np.random.default_rng(seed)
    return " ".join(random.choice(WORDS, length))


def write_jsonl(path, texts, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return path


def tool(script, *arguments, **keywords):
    return subprocess.run(
        [sys.executable, TOOLS / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **keywords,
    )


def prepare(*arguments, expect=0):
    result = tool("prepare.py", *arguments)
    assert result.returncode == expect, result.stderr
    return result


def refused(*arguments, code, says):
    """The tool ends with `code` and a last line that says so."""
    last = prepare(*arguments, expect=code).stderr.strip().splitlines()[-1]
    assert last.startswith("echelon: ") and says in last, last
    return last


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A byte-level and a wordpiece data set of the same 200 documents."""
    folder = tmp_path_factory.mktemp("trained")
    texts = [sentence(seed) + f" – Zürich {seed} 日本" for seed in range(200)]
    write_jsonl(folder / "text.jsonl", texts)
    for kind in ("bpe", "wordpiece"):
        prepare(
            f"--input={folder}/text.jsonl",
            f"--tokenizer=train:{kind}:400",
            f"--out={folder}/{kind}/train",
            "--heldout=0.2",
            f"--heldout_out={folder}/{kind}/heldout",
        )
    return folder, texts


def meta(prefix):
    return json.loads(Path(f"{prefix}.meta.json").read_text())


def documents_of(prefix):
    ids, ends = indexed.read(str(prefix))
    return [ids[begin:end].tolist() for begin, end in zip(ends, ends[1:])]


# What is written


def test_the_index_is_megatrons_byte_for_byte(tmp_path):
    writer = indexed.Writer(str(tmp_path / "x"), np.dtype("<u2"))
    writer.add(np.array([1, 2, 3]), True)
    writer.add(np.array([4]), True)
    writer.commit()
    golden = (
        "4d4d4944494458000001000000000000000802000000000000000300000000000000030000000100000000000000000000000600000000"
        "000000000000000000000001000000000000000200000000000000"
    )
    assert (tmp_path / "x.idx").read_bytes().hex() == golden
    assert (tmp_path / "x.bin").read_bytes().hex() == "0100020003000400"


def test_transformers_loads_the_byte_level_tokenizer_and_gives_the_same_ids(trained):
    from transformers import AutoTokenizer

    folder, texts = trained
    tokenizer = AutoTokenizer.from_pretrained(folder / "bpe" / "train.tokenizer")
    written = {tuple(ids) for part in ("train", "heldout") for ids in documents_of(folder / "bpe" / part)}
    assert written == {
        tuple(tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]) for text in texts
    }
    assert tokenizer.decode(tokenizer(texts[7])["input_ids"]) == texts[7]


def test_transformers_loads_the_wordpiece_tokenizer_and_gives_the_same_ids(trained):
    from transformers import AutoTokenizer

    folder, texts = trained
    tokenizer = AutoTokenizer.from_pretrained(folder / "wordpiece" / "train.tokenizer")
    written = {tuple(ids) for part in ("train", "heldout") for ids in documents_of(folder / "wordpiece" / part)}
    # Without its leading [CLS]: a document ends with [SEP].
    assert written == {tuple(tokenizer(text)["input_ids"][1:]) for text in texts}
    assert tokenizer.mask_token_id == meta(folder / "wordpiece" / "train")["mask_id"]


def test_the_meta_file_names_what_models_need(trained):
    folder, _ = trained
    bpe, wordpiece = meta(folder / "bpe" / "train"), meta(folder / "wordpiece" / "train")
    assert (bpe["eos_id"], bpe["pad_id"], bpe["mask_id"], bpe["special_ids"]) == (0, 1, None, [0, 1])
    assert (wordpiece["pad_id"], wordpiece["mask_id"], wordpiece["special_ids"]) == (0, 4, [0, 1, 2, 3, 4])
    ids, _ = indexed.read(str(folder / "bpe" / "train"))
    assert bpe["largest_id"] == ids.max() < bpe["vocabulary_size"] <= 400
    assert bpe["statistics"]["tokens"] == len(ids)
    assert (folder / "bpe" / bpe["tokenizer"] / "tokenizer.json").is_file()


def test_the_split_is_by_whole_documents_and_the_same_for_every_tokenizer(trained):
    folder, texts = trained
    parts = [meta(folder / kind / part)["statistics"] for kind in ("bpe", "wordpiece") for part in ("train", "heldout")]
    assert parts[0]["documents"] + parts[1]["documents"] == len(texts)
    assert 20 < parts[1]["documents"] < 60  # 0.2 of 200, six sigma
    assert [part["bytes"] for part in parts[:2]] == [part["bytes"] for part in parts[2:]]


def test_a_second_run_writes_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    for kind in ("bpe", "wordpiece"):
        prepare(
            f"--input={folder}/text.jsonl",
            f"--tokenizer=train:{kind}:400",
            f"--out={tmp_path}/{kind}/train",
            "--heldout=0.2",
            f"--heldout_out={tmp_path}/{kind}/heldout",
            "--threads=1",
        )
        for path in sorted((folder / kind).rglob("*")):
            if path.is_file():
                assert path.read_bytes() == (tmp_path / kind / path.relative_to(folder / kind)).read_bytes(), path


def test_a_folders_tokenizer_is_used_and_copied_as_it_is(trained, tmp_path):
    folder, texts = trained
    source = folder / "wordpiece" / "train.tokenizer"
    prepare(f"--input={folder}/text.jsonl", f"--tokenizer={source}", f"--out={tmp_path}/again")
    assert len(documents_of(tmp_path / "again")) == len(texts)
    for path in source.iterdir():
        assert path.read_bytes() == (tmp_path / "again.tokenizer" / path.name).read_bytes()


def test_special_tokens_in_a_document_are_text(trained, tmp_path):
    folder, _ = trained
    write_jsonl(tmp_path / "a.jsonl", ["the <|endoftext|> heaven"])
    prepare(f"--input={tmp_path}/a.jsonl", f"--tokenizer={folder}/bpe/train.tokenizer", f"--out={tmp_path}/a")
    [ids] = documents_of(tmp_path / "a")
    assert ids.count(0) == 1 and ids[-1] == 0


def test_append_eos_can_be_switched_off(trained, tmp_path):
    folder, _ = trained
    prepare(
        f"--input={folder}/text.jsonl",
        f"--tokenizer={folder}/bpe/train.tokenizer",
        f"--out={tmp_path}/a",
        "--noappend_eos",
    )
    assert not any(0 in ids for ids in documents_of(tmp_path / "a"))
    assert meta(tmp_path / "a")["document_end_id"] is None


def test_a_vocabulary_beyond_16_bits_is_written_with_32(tmp_path):
    assert indexed.dtype_for(65499).itemsize == 2
    assert indexed.dtype_for(65500) == np.dtype("<i4")


# What is read


def test_text_jsonl_gzip_zstd_globs_and_folders_give_the_same_documents(tmp_path):
    texts = [sentence(seed) for seed in range(5)]
    expected = sorted(texts)
    plain = write_jsonl(tmp_path / "a" / "x.jsonl" if (tmp_path / "a").mkdir() is None else None, texts)
    write_jsonl(tmp_path / "y.jsonl.gz", texts, gzip.open)
    (tmp_path / "z.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    (tmp_path / "b").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "b" / f"{number}.txt").write_text(text)
    for item in (plain, tmp_path / "y.jsonl.gz", tmp_path / "z.jsonl.zst", tmp_path / "b", tmp_path / "b" / "*.txt"):
        assert sorted(piece.text for piece in reading.Documents(reading.expand([str(item)]))) == expected, item


def test_byte_order_marks_and_carriage_returns_are_tolerated(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert [piece.text for piece in reading.Documents([str(tmp_path / "a.jsonl")])] == ["one", "two"]
    assert [piece.text for piece in reading.Documents([str(tmp_path / "b.txt")])] == ["one\ntwo"]


def test_blank_lines_end_documents_on_request(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n")
    pieces = reading.Documents([str(tmp_path / "a.txt")], by_paragraph=True)
    assert [(piece.text, piece.place) for piece in pieces] == [
        ("one\ntwo", f"{tmp_path}/a.txt:1"),
        ("three", f"{tmp_path}/a.txt:5"),
    ]


def test_a_long_document_is_encoded_in_pieces_and_stays_one_document(trained, tmp_path, monkeypatch):
    folder, _ = trained
    text = "\n".join(sentence(seed, 12) for seed in range(400))
    write_jsonl(tmp_path / "a.jsonl", [text])
    (tmp_path / "b.txt").write_text(text)
    monkeypatch.setattr(reading, "PIECE", 1000)
    for name in ("a.jsonl", "b.txt"):
        pieces = list(reading.Documents([str(tmp_path / name)]))
        assert len(pieces) > 10 and [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert "".join(piece.text for piece in pieces) == text
        from vocabulary import load

        tokenizer = load(str(folder / "bpe" / "train.tokenizer")).tokenizer
        assert sum((tokenizer.encode(piece.text).ids for piece in pieces), []) == tokenizer.encode(text).ids


# What is refused


@pytest.mark.parametrize(
    "line, says",
    [
        (b'{"text": "cut', ":2: bad JSON"),
        (b'{"text": ""}', ':2: "text" is empty'),
        (b'{"text": "a\xff"}', ":2: invalid UTF-8 at byte 12"),
        (b'{"text": 3}', ':2: "text" is not a string'),
        (b'{"body": "a"}', ':2: no key "text"; --json_key names another one of: body'),
        (b'["a"]', ":2: expected a JSON object"),
        (b'{"text": "\\ud800"}', ':2: "text" holds half of a surrogate pair'),
        (b"[" * 100000, ":2: bad JSON (nested too deeply"),
        (b"", ":2: empty line"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    refused(
        f"--input={tmp_path}/a.jsonl", "--tokenizer=train:bpe:300", f"--out={tmp_path}/x", code=4, says=f"a.jsonl{says}"
    )
    assert not list(tmp_path.glob("x*"))


def test_empty_and_damaged_text_files_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("  \n\n")
    refused(
        f"--input={tmp_path}/a.txt",
        "--tokenizer=train:bpe:300",
        f"--out={tmp_path}/x",
        code=4,
        says="a.txt:1: empty text",
    )
    (tmp_path / "a.txt").write_bytes(b"fine\nb\xc3(\n")
    refused(
        f"--input={tmp_path}/a.txt",
        "--tokenizer=train:bpe:300",
        f"--out={tmp_path}/x",
        code=4,
        says="a.txt:2: invalid UTF-8",
    )


@pytest.mark.parametrize("name, compress", [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)])
def test_cut_compressed_files_are_noticed(tmp_path, name, compress):
    data = compress(b"".join(json.dumps({"text": sentence(seed)}).encode() + b"\n" for seed in range(500)))
    (tmp_path / name).write_bytes(data[:-10])
    refused(f"--input={tmp_path}/{name}", "--tokenizer=train:bpe:300", f"--out={tmp_path}/x", code=4, says="damaged")


@pytest.mark.parametrize("name, compress", [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)])
def test_decompression_bombs_are_refused(tmp_path, name, compress):
    line = json.dumps({"text": "a" * 1000}).encode() + b"\n"
    (tmp_path / name).write_bytes(compress(line * 40000))
    refused(
        f"--input={tmp_path}/{name}",
        "--tokenizer=train:bpe:300",
        f"--out={tmp_path}/x",
        code=4,
        says="200 times its size",
    )


def test_a_line_beyond_64_mib_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"first\n" + b"a" * (65 << 20))
    refused(
        f"--input={tmp_path}/a.txt",
        "--tokenizer=train:bpe:300",
        f"--out={tmp_path}/x",
        code=4,
        says="a.txt:2: line longer",
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--tokenizer=train:bpe:10"], "258 to"),
        (["--tokenizer=train:unigram:500"], "neither train:bpe:SIZE"),
        (["--tokenizer=train:bpe:300", "--heldout=1.5"], "not in [0, 1)"),
        (["--tokenizer=train:bpe:300", "--append_eoss=false"], "did you mean --append_eos"),
        (["--tokenizer=train:bpe:300", "more"], 'unexpected argument "more"'),
        (["--tokenizer=train:bpe:300", "--heldout=0.1", "--heldout_input=a"], "choose one"),
    ],
)
def test_wrong_flags_are_refused_by_name(tmp_path, arguments, says):
    write_jsonl(tmp_path / "a.jsonl", ["text"])
    refused(f"--input={tmp_path}/a.jsonl", f"--out={tmp_path}/x", *arguments, code=2, says=says)


def test_missing_files_and_folders_are_named(tmp_path):
    refused(
        f"--input={tmp_path}/none.txt",
        "--tokenizer=train:bpe:300",
        f"--out={tmp_path}/x",
        code=4,
        says="none.txt: no such file",
    )
    refused(
        f"--input={tmp_path}/*.txt", "--tokenizer=train:bpe:300", f"--out={tmp_path}/x", code=4, says="matches no file"
    )
    write_jsonl(tmp_path / "a.jsonl", ["text"])
    refused(
        f"--input={tmp_path}/a.jsonl",
        f"--tokenizer={tmp_path}/no",
        f"--out={tmp_path}/x",
        code=4,
        says="no such folder",
    )


def test_a_damaged_tokenizer_is_refused(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["text"])
    (tmp_path / "tokenizer.json").write_text(
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 1, "b": "x"}}}'
    )
    refused(
        f"--input={tmp_path}/a.jsonl", f"--tokenizer={tmp_path}", f"--out={tmp_path}/x", code=4, says="cannot be read"
    )


def test_missing_python_packages_are_named():
    result = subprocess.run([sys.executable, "-S", TOOLS / "prepare.py"], capture_output=True, text=True, check=False)
    assert result.returncode == 3 and "lacks the Python packages numpy, tokenizers, tqdm, zstandard" in result.stderr


def test_a_full_disk_is_a_storage_error(tmp_path):
    file = indexed.AtomicFile(str(tmp_path / "a.bin"))
    file.file.close()
    file.file = open("/dev/full", "wb", buffering=0)
    with pytest.raises(Failure) as failed:
        file.write(b"data")
    assert failed.value.kind == "storage" and "No space left" in failed.value.sentence()


def test_an_interrupted_run_leaves_nothing_and_an_older_result_whole(trained, tmp_path):
    folder, _ = trained
    write_jsonl(tmp_path / "a.jsonl", [sentence(0)])
    prepare(f"--input={tmp_path}/a.jsonl", f"--tokenizer={folder}/bpe/train.tokenizer", f"--out={tmp_path}/out/x")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("x.*") if path.is_file()}
    write_jsonl(tmp_path / "b.jsonl", [sentence(seed, 3000) for seed in range(2000)])
    process = subprocess.Popen(
        [
            sys.executable,
            TOOLS / "prepare.py",
            f"--input={tmp_path}/b.jsonl",
            f"--out={tmp_path}/out/x",
            f"--tokenizer={folder}/bpe/train.tokenizer",
        ],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*.tmp-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("x.*") if path.is_file()} == before


def test_an_index_that_lies_is_refused(trained, tmp_path):
    folder, _ = trained
    index = bytearray((folder / "bpe" / "train.idx").read_bytes())
    (tmp_path / "x.bin").write_bytes((folder / "bpe" / "train.bin").read_bytes()[:-2])
    (tmp_path / "x.idx").write_bytes(index)
    with pytest.raises(Failure, match="do not fill"):
        indexed.read(str(tmp_path / "x"))
    index[18:26] = struct.pack("<Q", 1 << 60)
    (tmp_path / "x.idx").write_bytes(index)
    with pytest.raises(Failure, match="expected"):
        indexed.read(str(tmp_path / "x"))


# What is measured


def test_the_entropy_of_a_uniform_text_is_the_logarithm_of_its_alphabet():
    assert ngrams.entropy(np.array([5, 5, 5, 5, 0])) == pytest.approx(math.log(4))


def test_the_bigram_model_is_a_distribution_and_learns_a_chain():
    random = np.random.default_rng(0)
    ids = np.cumsum(random.choice([1, 2], 20000)) % 50  # each token has two followers
    model = ngrams.Bigram(ids[:16000], 60)
    for previous in (0, 7, 55):  # 55 never occurs: it backs off to unigrams
        assert model.probability(np.full(60, previous), np.arange(60)).sum() == pytest.approx(1)
    assert model.cross_entropy(ids[16000:]) == pytest.approx(math.log(2), abs=0.02)


def test_baselines_agrees_with_the_meta_file(trained):
    folder, _ = trained
    result = tool("baselines.py", f"--train={folder}/bpe/train", f"--heldout={folder}/bpe/heldout")
    statistics = meta(folder / "bpe" / "heldout")["statistics"]
    printed = json.loads(result.stdout)
    assert printed["unigram_entropy"] == pytest.approx(statistics["unigram_entropy"])
    assert printed["bigram_cross_entropy"] == pytest.approx(statistics["bigram_cross_entropy"], rel=1e-2)
    assert statistics == {
        key: value for key, value in meta(folder / "bpe" / "train")["heldout"].items() if key in statistics
    }


# Text to ids and back


def test_text_goes_to_ids_and_back(trained):
    folder, _ = trained
    tokenizer = f"--tokenizer={folder}/bpe/train.tokenizer"
    text = "In the beginning\n  – Zürich 🙂"
    lines = json.dumps(text) + "\n" + json.dumps("In") + "\n"
    ids, short = tool("text.py", "encode", tokenizer, input=lines).stdout.splitlines()
    assert len(short.split(",")) < len(ids.split(","))
    answers = tool("text.py", "decode", tokenizer, input=f"{ids},0\n{short}\n").stdout.splitlines()
    assert [json.loads(answer) for answer in answers] == [text, "In"]


def test_ids_outside_the_vocabulary_are_refused(trained):
    folder, _ = trained
    result = tool("text.py", "decode", f"--tokenizer={folder}/bpe/train.tokenizer", input="1,999\n")
    assert result.returncode == 4 and "id 999" in result.stderr


# Manual pages


def test_roff_becomes_running_text():
    page = "\n".join(
        [
            r".\" a comment",
            ".TH open 2",
            ".SH NAME",
            r"open \- open a file",
            ".SH DESCRIPTION",
            "The",
            ".BR open ()",
            r"call, see \fBread\fP(2) and",
            r'.IR "open file" ,',
            "now.",
            ".TS",
            "l l.",
            "1\t2",
            ".TE",
            ".PP",
            ".nf",
            r'printf("a\en");',
            "  exit(0);",
            ".fi",
            ".TP",
            ".B O_CREAT",
            "Creates.",
        ]
    )
    assert plain_text(page) == (
        "NAME\n\nopen - open a file\n\nDESCRIPTION\n\nThe open() call, see read(2) and open file, now.\n\n"
        'printf("a\\n");\n  exit(0);\n\nO_CREAT\n\nCreates.'
    )


def test_the_verdict_on_an_evaluation_that_is_not_finite_is_exit_code_7(tmp_path):
    (tmp_path / "heldout.meta.json").write_text(json.dumps({"statistics": {"unigram_entropy": 4.0}}))
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.textproto").write_text("")
    lines = [{"step": 5, "eval": {"loss": 2.5}}, {"step": 6, "loss": None, "skipped": True}]
    for more, code, says in (
        ([], 0, "validation loss 2.5000 after step 5: below"),
        ([{"step": 9, "eval": {"loss": None}}], 7, "echelon: numerics: "),
    ):
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + more))
        result = tool("verdict.py", f"--run={run}", f"--heldout={tmp_path}/heldout")
        assert result.returncode == code and says in result.stdout + result.stderr, result
