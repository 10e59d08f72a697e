"""The reference step beside PyTorch in both precisions, eager, DDP and FSDP2, and LoRA beside PEFT: writes docs/benchmarks.md.

On a GPU (--device=cuda) the rows that one GPU can show: writes docs/benchmarks_gpu.md.

About twenty minutes; nothing else should run on the machine. See reference_step.py for what is measured and how.
"""

import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import reference_step
from flags import ROOT, parser_of
from reference_step import TASKS, compare, device_name, write_inputs

COMPARISONS = (
    ("full", "FP32", "DDP", (1, 2, 4)),
    ("full", "BF16", "DDP", (1, 2, 4)),
    ("full", "FP32", "FSDP2", (2, 4)),
    ("full", "BF16", "FSDP2", (2, 4)),
    ("llama", "FP32", "DDP", (1,)),
    ("llama", "BF16", "DDP", (1,)),
    ("bert", "FP32", "DDP", (1,)),
    ("bert", "BF16", "DDP", (1,)),
    ("short", "FP32", "DDP", (1,)),
    ("short", "BF16", "DDP", (1,)),
    ("124m", "BF16", "DDP", (1, 2, 4)),
    ("lora", "FP32", "DDP", (1,)),
)
ON_A_GPU = (
    ("full", "FP32", "DDP", (1,)),
    ("full", "BF16", "DDP", (1,)),
    ("llama", "BF16", "DDP", (1,)),
    ("124m_long", "FP32", "DDP", (1,)),
    ("124m_long", "BF16", "DDP", (1,)),
)
PAGES = {"cpu": "benchmarks.md", "cuda": "benchmarks_gpu.md"}
PAGE = """# Benchmarks

Written by `tests/bench/run all{flags}`, which anybody can run on a machine of his own. {date}, {processor}, {cores} cores, PyTorch {torch},
Python {python}, commit {commit}.

One step of 4 x 256 tokens (where nothing else is said) with AdamW and clipping at 1, from the same weights on the same tokens; Echelon at ZeRO-3. Both sides
alternate A B B A, {rounds} runs of {steps} steps each, and their losses agree, or there is no row. Milliseconds are medians with
quartiles; the ratio says how many steps Echelon takes while its peer takes one, in brackets where the quartiles cross and it does
not count. Memory is the peak above that of a process that has only loaded its libraries, Echelon's over its peer's.

| model | precision | ranks | peer | Echelon, ms | peer, ms | ratio | memory |
|---|---|---|---|---|---|---|---|
{rows}
"""


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (5)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a run, warm-up included (20)")
    parser.add_argument("--warmup", type=int, default=8, help="first steps of a run that are left out (8)")
    parser.add_argument("--zero", type=int, default=3, help="ZeRO stage of Echelon (3)")
    parser.add_argument("--out", help="page that is written (docs/benchmarks.md, of a GPU docs/benchmarks_gpu.md)")
    parser.add_argument("--device", choices=PAGES, default="cpu", help="where both sides compute (cpu)")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    return parser.parse_args()


def milliseconds(seconds):
    low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1000
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def row(options, ranks, ours, theirs, memory):
    ratio = f"{np.median(theirs) / np.median(ours):.2f}x"
    if np.percentile(ours, 25) <= np.percentile(theirs, 75) and np.percentile(theirs, 25) <= np.percentile(ours, 75):
        ratio = f"({ratio})"
    peer = options.peer if ranks > 1 else "PEFT, eager" if TASKS[options.task].adapter else "eager"
    return (f"| {TASKS[options.task].title} | {options.precision} | {ranks} | {peer} | {milliseconds(ours)} | {milliseconds(theirs)} | {ratio} | "
            f"{memory:.2f}x |")


def measure(options):
    for options.task, options.precision, options.peer, all_ranks in ON_A_GPU if options.device == "cuda" else COMPARISONS:
        with tempfile.TemporaryDirectory(prefix="echelon-bench-") as name:
            write_inputs(Path(name), options)
            for ranks in all_ranks:
                ours, theirs, _, memory = compare(Path(name), ranks, options)
                yield row(options, ranks, ours, theirs, memory)


def main():
    options = parse()
    reference_step.refuse_busy_machine(options)
    rows = []
    for line in measure(options):
        print(line, flush=True)
        rows.append(line)
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip() or "?"
    page = PAGE.format(flags=" --device=cuda" if options.device == "cuda" else "", date=date.today(), processor=device_name(options.device), cores=len(os.sched_getaffinity(0)), torch=torch.__version__,
                       python=platform.python_version(), commit=commit, rounds=options.rounds, steps=options.steps - options.warmup,
                       rows="\n".join(rows))
    Path(options.out or ROOT / "docs" / PAGES[options.device]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
