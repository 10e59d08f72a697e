"""Held-out loss of every exchange beside exact sums: each ZeRO stage, 2 and 4 ranks, several seeds, one small recipe.

Prints for each exchange and number of ranks how far the mean over seeds lies above the exact run's, and the spread of the seeds;
the stages share a line where their losses are the same to the digit.
"""

import statistics
import tempfile
from pathlib import Path

from flags import parser_of
from small_run import echelon, prepare, read_metrics, write_recipe

EXCHANGES = {
    "exact": "",
    "bfloat16": "exchange { [echelon/Exact] { wire: BF16 } }",
    "int8": "exchange { [echelon/Int8] {} }",
    "sign": "exchange { [echelon/Sign] { exact_steps: 50 } }",
    "1-bit Adam": "optimizer { [echelon/OneBitAdam] { learning_rate: 3e-3 beta2: 0.95 weight_decay: 0.1 warmup_steps: 100 } }",
    "top-k": "exchange { [echelon/TopK] { fraction: 0.1 exact_steps: 50 } }",
    "PowerSGD": "exchange { [echelon/PowerSgd] { rank: 4 } }",
}

BATCH = ("batch.global=16", "batch.micro=4")  # two micro-steps on 2 ranks


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--exchanges", default=",".join(EXCHANGES), help="of: " + ", ".join(EXCHANGES))
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks (2,4)")
    parser.add_argument("--stages", default="0,1,2,3", help="ZeRO stages (0,1,2,3)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--steps", type=int, default=200, help="of a run (200)")
    return parser.parse_args()


def held_out(options, exchange, ranks, stage, folder):
    losses = []
    for seed in range(1, options.seeds + 1):
        recipe = write_recipe(folder, options.steps, seed, EXCHANGES[exchange])
        out = folder / f"{exchange.replace(' ', '-')}-{ranks}-{stage}-{seed}"
        echelon(options.build, "train", recipe, f"--ranks={ranks}", f"--out={out}", f"sharding.zero={stage}", *BATCH)
        losses.append(read_metrics(out)[1])
    return losses


def main():
    options = parse()
    prepare(options.build)
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    print(f"{options.steps} steps, {options.seeds} seeds; held-out loss: mean, above exact, spread (largest - smallest of the seeds)")
    with tempfile.TemporaryDirectory(prefix="echelon-exchange-") as name:
        exact = statistics.mean(held_out(options, "exact", 2, 0, Path(name)))
        for exchange in options.exchanges.split(","):
            for ranks in numbers(options.ranks):
                by_losses = {}
                for stage in numbers(options.stages):
                    by_losses.setdefault(tuple(held_out(options, exchange, ranks, stage, Path(name))), []).append(stage)
                for losses, stages in by_losses.items():
                    mean = statistics.mean(losses)
                    print(f"{exchange:<12} {ranks} ranks  ZeRO {','.join(map(str, stages)):<8} {mean:8.4f}  {100 * (mean / exact - 1):+6.2f} %  "
                          f"{max(losses) - min(losses):.4f}", flush=True)


if __name__ == "__main__":
    main()
