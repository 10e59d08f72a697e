"""Tokens a second as ranks and models grow: decoders of 2, 14, 124 and 350 million parameters on 1, 2, 4 and 8 ranks of this machine.

Every step takes the same 8 x 256 tokens, cut by the ranks; ZeRO-3, AdamW, clipping at 1. Rounds go through the numbers of ranks forwards and
backwards. Printed as a table in Markdown: the median step's tokens a second, quartiles, and, beside one rank, how much of it is left. Nothing
else should run on the machine.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from flags import parser_of
from reference_step import VOCABULARY, describe, refuse_busy_machine, write_tokens
from small_run import echelon

LENGTH, BATCH = 256, 8
# name: (layers, width, heads, steps of a run)
MODELS = {"2": (3, 128, 4, 40), "14": (6, 384, 6, 20), "124": (12, 896, 14, 6), "350": (24, 1088, 17, 4)}
RECIPE = """name: "scaling"
seed: 1  steps: {steps}  clip_norm: 1.0  precision: {precision}
model {{ architecture {{ family: "gpt2" layers: {layers} width: {width} heads: {heads} positions: {length} }} }}
objective {{ [echelon/CausalLm] {{}} }}
data {{ train {{ [echelon/TokenFile] {{ path: "{folder}/tokens" sequence_length: {length} }} }} shuffle: false }}
batch {{ global: {batch} }}
optimizer {{ [echelon/AdamW] {{ learning_rate: 3e-4 beta2: 0.95 weight_decay: 0.1 }} }}
sharding {{ zero: 3 }}
checkpoint {{ every: 1000000 }}
"""


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help=f"millions of parameters, of {', '.join(MODELS)} ({','.join(MODELS)})")
    parser.add_argument("--ranks", default="1,2,4,8", help="numbers of ranks (1,2,4,8)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (2)")
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="BF16")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    return parser.parse_args()


def run(options, folder, ranks):
    """Seconds of each step behind the first quarter."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    echelon(options.build, "train", folder / "scaling.textproto", f"--ranks={ranks}", f"--out={folder}/run", "--max_restarts=0")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["step_seconds"] for line in lines if "loss" in line]
    return seconds[max(1, len(seconds) // 4) :]


def measure(options, name, all_ranks):
    layers, width, heads, steps = MODELS[name]
    seconds = {ranks: [] for ranks in all_ranks}
    with tempfile.TemporaryDirectory(prefix="echelon-scaling-") as temporary:
        folder = Path(temporary)
        write_tokens(folder / "tokens", steps * BATCH * LENGTH + 1)
        (folder / "scaling.textproto").write_text(
            RECIPE.format(steps=steps, precision=options.precision, layers=layers, width=width, heads=heads, length=LENGTH, batch=BATCH, folder=folder))
        for round_number in range(options.rounds):
            for ranks in all_ranks if round_number % 2 == 0 else reversed(all_ranks):
                seconds[ranks] += run(options, folder, ranks)
    return {ranks: BATCH * LENGTH / np.array(of) for ranks, of in seconds.items()}


def parameters(name):
    layers, width, _, _ = MODELS[name]
    return (12 * layers * width * width + (VOCABULARY + LENGTH) * width) / 1e6


def cell(rates, alone):
    low, middle, high = np.percentile(rates, [25, 50, 75])
    return f"{middle:,.0f} [{low:,.0f}, {high:,.0f}], {middle / np.median(alone):.2f}"


def main():
    options = parse()
    refuse_busy_machine(options)
    all_ranks = [int(ranks) for ranks in options.ranks.split(",")]
    if all_ranks[0] != 1 or any(BATCH % ranks for ranks in all_ranks):
        sys.exit(f"--ranks={options.ranks}: 1 and divisors of {BATCH}, 1 first")
    describe(f"{options.precision}, ZeRO-3, {BATCH} x {LENGTH} tokens a step; tokens a second, median [quartiles], share of one rank's")
    print("| parameters | " + " | ".join(f"{ranks} rank{'s' if ranks > 1 else ''}" for ranks in all_ranks) + " |")
    print("|---" * (len(all_ranks) + 1) + "|")
    for name in options.models.split(","):
        rates = measure(options, name, all_ranks)
        print(f"| {parameters(name):.0f} M | " + " | ".join(cell(rates[ranks], rates[1]) for ranks in all_ranks) + " |", flush=True)


if __name__ == "__main__":
    main()
