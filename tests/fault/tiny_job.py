"""A small job for the tests of this folder: its corpus, its recipe, its runs and what they wrote."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

VOCABULARY = 101
STEPS = 24

# Dropout, accumulation, clipping, evaluation, and an epoch that ends within the run.
RECIPE = """
name: "tiny_job"
seed: 3  steps: {steps}  clip_norm: 0.5
model {{ architecture {{ family: "gpt2" layers: 2 width: 32 heads: 4 positions: 32 dropout: 0.1 attention_dropout: 0.1 }} }}
objective {{ [echelon/CausalLm] {{}} }}
data {{
  train {{ [echelon/TokenFile] {{ path: "{corpus}" sequence_length: 16 }} }}
  validation {{ [echelon/TokenFile] {{ path: "{corpus}" sequence_length: 16 }} }}
}}
batch {{ global: 12 micro: 1 }}
optimizer {{ [echelon/AdamW] {{ learning_rate: 3e-3 }} }}
schedule {{ [echelon/WarmupInverseSqrt] {{ warmup_steps: 4 }} }}
checkpoint {{ every: 3 keep: 2 }}
evaluate {{ every: 5 batches: 2 }}
"""


def write_corpus(prefix: Path) -> None:
    tokens = numpy.random.default_rng(3).integers(5, VOCABULARY, 16 * 130, dtype=numpy.uint16)
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    header = b"MMIDIDX\0\0" + numpy.uint64(1).tobytes() + numpy.uint8(8).tobytes()
    counts = numpy.array([1, 2], numpy.uint64).tobytes()
    arrays = numpy.array([len(tokens)], numpy.int32).tobytes() + numpy.array([0, 0, 1], numpy.int64).tobytes()
    prefix.with_suffix(".idx").write_bytes(header + counts + arrays)
    meta = {"vocabulary_size": VOCABULARY, "pad_id": 0, "mask_id": 4, "special_ids": [0, 1, 2, 3, 4]}
    Path(f"{prefix}.meta.json").write_text(json.dumps(meta))


def write_recipe(work: Path, steps: int = STEPS) -> Path:
    write_corpus(work / "corpus")
    recipe = work / "tiny_job.textproto"
    recipe.write_text(RECIPE.format(steps=steps, corpus=work / "corpus"))
    return recipe


def command(build: str, recipe: Path, run: Path, ranks: int, *more: str) -> list[str]:
    return [f"{build}/bin/echelon", "train", str(recipe), f"--out={run}", f"--ranks={ranks}", "--max_restarts=0", *more]


def start(build: str, recipe: Path, run: Path, ranks: int, *more: str) -> subprocess.Popen:
    words = command(build, recipe, run, ranks, *more)
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(build: str, recipe: Path, run: Path, ranks: int, *more: str, seconds: float = 120) -> str:
    """What the run said."""
    process = start(build, recipe, run, ranks, *more)
    errors = process.communicate(timeout=seconds)[1]
    if process.returncode != 0:
        raise SystemExit(f"echelon train ended with {process.returncode}:\n{errors}")
    return errors


def metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without what differs between two equal runs: times and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("step_seconds", "seconds", "checkpoint_seconds", "tokens_per_second", "memory_peak_bytes"):
            line.pop(key, None)
    return lines


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics(run) if "loss" in line}


def weights(run: Path) -> bytes:
    return (run / "export" / "model.safetensors").read_bytes()


def pids(program: str, run: Path) -> list[int]:
    """Processes of a program of the run, found by the folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if Path(words[0].decode(errors="replace")).name == program and f"--out={run}".encode() in words:
            found.append(int(entry.name))
    return sorted(found)


def rank_pids(run: Path) -> list[int]:
    return pids("echelon-rank", run)


def is_held(run: Path) -> bool:
    """Whether a live run has written its claim."""
    claims = sorted((run / "lease").glob("epoch-*.json"))
    try:
        return bool(claims) and not json.loads(claims[-1].read_text())["released"]
    except (OSError, ValueError):
        return False


def is_whole(build: str, path: Path) -> bool:
    result = subprocess.run([f"{build}/bin/echelon", "inspect", str(path), "--verify"], capture_output=True, env=os.environ)
    return result.returncode == 0


def judge(checks) -> None:
    """Calls `checks(build, recipe, work)` with the build named on the command line, in a folder that goes away with it."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checks(sys.argv[1], write_recipe(work), work)
