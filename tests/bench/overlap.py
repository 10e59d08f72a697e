"""What it is worth that values and gradients travel while others are computed: two nodes of one rank each, joined by a link of limited rate.

Trains a decoder of 3 million parameters at each ZeRO stage with sharding.overlap on and off; runs alternate A B B A, and their losses must
be the same to the bit. Prints the milliseconds of a step, those in which ranks only waited for the link, and the ratio. Needs root (network
namespaces) and ./quickstart's text. Nothing else should run on the machine.
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

WARM_UP = 5


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rates", default="300,1000", help="Mbit/s, comma-separated (300,1000)")
    parser.add_argument("--stages", default="0,1,2,3", help="ZeRO stages, comma-separated (0,1,2,3)")
    parser.add_argument("--steps", type=int, default=40, help=f"of a run; the first {WARM_UP} are left out (40)")
    parser.add_argument("--rounds", type=int, default=1, help="A B B A (1)")
    parser.add_argument("--width", type=int, default=192, help="of the decoder (192)")
    parser.add_argument("--layers", type=int, default=6, help="of the decoder (6)")
    return parser.parse_args()


def run(options, stage, rate, overlap, folder):
    recipe = write_recipe(folder, options.steps, 1)
    out = folder / f"run-{len(list(folder.iterdir()))}"
    fields = (f"sharding.zero={stage}", f"sharding.overlap={str(overlap).lower()}", f"model.architecture.width={options.width}",
              f"model.architecture.layers={options.layers}", "batch.micro=0", "evaluate.batches=1")
    with TwoNodes(f"{rate}mbit") as nodes:
        echelon(options.build, "train", recipe, f"--hosts={nodes.hosts(1)}", "--ranks=2", f"--out={out}", "--max_restarts=0", *fields,
                runner=lambda words, **more: nodes.run(1, words, **more))
    return read_metrics(out)[0]


def measure(options, stage, rate, folder):
    """(ms of each step, ms of waiting in it) without and with overlap."""
    steps = {False: [], True: []}
    losses = []
    for _ in range(options.rounds):
        for overlap in (False, True, True, False):
            lines = run(options, stage, rate, overlap, folder)
            losses.append([line["loss"] for line in lines])
            steps[overlap] += [(line["step_seconds"], line["seconds"]["communication"]) for line in lines[WARM_UP:]]
    if any(other != losses[0] for other in losses):
        sys.exit(f"ZeRO-{stage}: the losses differ")
    return {overlap: 1000 * np.array(of) for overlap, of in steps.items()}


def text(ms):
    low, middle, high = np.percentile(ms[:, 0], [25, 50, 75])
    return f"{middle:7.1f} [{low:.1f}, {high:.1f}], {np.median(ms[:, 1]):6.1f} waiting"


def main():
    options = parse()
    TwoNodes.require()
    prepare(options.build)
    print(f"{'':<24}{'one after the other, ms':>38}{'overlapped, ms':>38}")
    with tempfile.TemporaryDirectory(prefix="echelon-overlap-") as name:
        for rate in options.rates.split(","):
            for stage in options.stages.split(","):
                ms = measure(options, stage, rate, Path(name))
                ratio = np.median(ms[False][:, 0]) / np.median(ms[True][:, 0])
                print(f"ZeRO-{stage}, {rate} Mbit/s".ljust(24) + f"{text(ms[False]):>38}{text(ms[True]):>38}  {ratio:.2f}x", flush=True)


if __name__ == "__main__":
    main()
