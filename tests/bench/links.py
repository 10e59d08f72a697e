"""How fast each exchange reaches a loss over a slow link: two nodes of one rank each, joined by a link of limited rate.

Trains a decoder of 0.43 million parameters over links of several rates, once for each exchange, until the smoothed training loss
reaches the target. Prints seconds to the target, steps, and gradient bytes a step; with --out also draws them. Needs root
(network namespaces) and ./quickstart's text. Nothing else should run on the machine.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from flags import ROOT, parser_of
from small_run import echelon, prepare, read_metrics, write_recipe

sys.path.insert(0, str(ROOT / "tests" / "fault"))
from two_nodes import TwoNodes  # noqa: E402

EXCHANGES = {
    "exact": "",
    "int8": "exchange { [echelon/Int8] {} }",
    "1-bit Adam": "optimizer { [echelon/OneBitAdam] { warmup_steps: 40 learning_rate: 3e-3 beta2: 0.95 weight_decay: 0.1 } }",
    "top-k": "exchange { [echelon/TopK] { fraction: 0.1 } }",
    "PowerSGD": "exchange { [echelon/PowerSgd] { rank: 4 } }",
    "DiLoCo": "mesh { replicas: 2 } exchange { [echelon/DiLoCo] { inner_steps: 20 synchronous_steps: 20 } }",
}
# Weights do not travel at ZeRO-0: on such a link nothing else would make sense.
CHANGES = ("sharding.zero=0", "schedule.final_fraction=1", "evaluate.batches=1")
SMOOTHING = 0.9


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rates", default="10,100,1000", help="Mbit/s, comma-separated (10,100,1000)")
    parser.add_argument("--exchanges", default=",".join(EXCHANGES), help="of: " + ", ".join(EXCHANGES))
    parser.add_argument("--target", type=float, default=5.3, help="smoothed loss to reach (5.3)")
    parser.add_argument("--steps", type=int, default=220, help="most steps of a run (220)")
    parser.add_argument("--seed", type=int, default=1, help="of the runs (1)")
    parser.add_argument("--out", default="", help="svg that is written; empty: none")
    return parser.parse_args()


def run(options, name, rate, folder):
    recipe = write_recipe(folder, options.steps, options.seed, EXCHANGES[name])
    out = folder / f"{name.replace(' ', '-')}-{rate}"
    with TwoNodes(f"{rate}mbit") as nodes:
        echelon(options.build, "train", recipe, f"--hosts={nodes.hosts(1)}", "--ranks=2", f"--out={out}", "--max_restarts=0", *CHANGES,
                runner=lambda words, **more: nodes.run(1, words, **more))
    return read_metrics(out)[0]


def to_target(steps, target):
    """Seconds and number of steps until the smoothed loss is at most `target`; None: never."""
    smooth, seconds = steps[0]["loss"], 0.0
    for count, step in enumerate(steps, 1):
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * step["loss"]
        seconds += step["step_seconds"]
        if smooth <= target:
            return seconds, count
    return None


def draw(path, results, rates):
    """Bars of seconds to the target, a group for each rate."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    width = 0.8 / len(results)
    for i, (name, row) in enumerate(results.items()):
        axes.bar([g + i * width for g in range(len(rates))], [r[0] if r else np.nan for r in row], width, label=name)
    axes.set_xticks([g + 0.4 - width / 2 for g in range(len(rates))], [f"{rate} Mbit/s" for rate in rates])
    axes.set_yscale("log")
    axes.set_ylabel("seconds to the target loss")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    options = parse()
    TwoNodes.require()
    prepare(options.build)
    rates = [int(rate) for rate in options.rates.split(",")]
    results = {}
    print(f"{'exchange':<12}" + "".join(f"{f'{rate} Mbit/s':>26}" for rate in rates) + f"{'gradient bytes a step':>24}")
    with tempfile.TemporaryDirectory(prefix="echelon-links-") as name:
        for exchange in options.exchanges.split(","):
            cells, results[exchange], sent = [], [], 0
            for rate in rates:
                steps = run(options, exchange, rate, Path(name))
                reached = to_target(steps, options.target)
                results[exchange].append(reached)
                sent = np.mean([step["bytes_sent"].get("gradients", 0) + step["bytes_sent"].get("updates", 0) for step in steps])
                cells.append(f"{reached[0]:.1f} s, {reached[1]} steps" if reached else f"above at {steps[-1]['loss']:.2f}")
            print(f"{exchange:<12}" + "".join(f"{cell:>26}" for cell in cells) + f"{sent:>24,.0f}", flush=True)
    if options.out:
        draw(Path(options.out), results, rates)


if __name__ == "__main__":
    main()
