"""What it costs to look after memory: numerics.guard_share and numerics.compare_every, in a steady step.

The reference model of 14 million parameters. Both costs are far below the noise of a step at their defaults, so they are made a hundred
times as large: everything is guarded, every step is compared. Rounds alternate runs with and without; of each pair the ratio of the medians
of step_seconds (guard), or of the time from the first step's line in metrics.jsonl to the last one's (compare, which is beside
the step). A hundredth of what the ratio lies above one is the cost at the defaults.
"""

import time

import numpy as np
from flags import parser_of
from reference_run import inputs, train

WARM_UP = 5
OFF = {"numerics.guard_share": "0", "numerics.compare_every": "0"}
KINDS = {"guard": {"numerics.guard_share": "1"}, "compare": {"numerics.compare_every": "1"}}


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="ranks (2)")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of runs of each kind (4)")
    parser.add_argument("--steps", type=int, default=30, help=f"steps of a run; the first {WARM_UP} are left out (30)")
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="FP32")
    parser.add_argument("--zero", type=int, choices=range(4), default=0, help="ZeRO stage (0: every rank holds everything)")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    parser.set_defaults(task="full")
    return parser.parse_args()


def line_times(process, path, count):
    """When each of `count` steps was seen in the metrics of a running job."""
    times = []
    while process.poll() is None and len(times) < count:
        lines = path.read_text().count("\n") if path.exists() else 0
        times += [time.monotonic()] * (lines - len(times))
        time.sleep(0.005)
    return times


def run(folder, fields, options):
    """Median seconds of a step, and seconds from one step to the next."""
    times = []

    def watch(process):
        times.extend(line_times(process, folder / "run" / "metrics.jsonl", options.steps))

    words = (f"steps={options.steps + 1}", "checkpoint.every=100000", *(f"{field}={value}" for field, value in (OFF | fields).items()))
    lines = train(options, folder, options.ranks, *words, watch=watch)[WARM_UP:options.steps]
    return np.median([line["step_seconds"] for line in lines]), (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)


def main():
    options = parse()
    headline = f"{options.precision}, ZeRO-{options.zero}, {options.ranks} ranks, {options.rounds} pairs of {options.steps} steps"
    with inputs(options, headline) as folder:
        for column, (kind, fields) in enumerate(KINDS.items()):
            pairs = []
            for number in range(options.rounds):
                order = (fields, {}) if number % 2 == 0 else ({}, fields)
                seconds = {bool(which): run(folder, which, options)[column] for which in order}
                pairs.append((seconds[True] / seconds[False], seconds[False]))
            low, middle, high = np.percentile([ratio for ratio, _ in pairs], [25, 50, 75])
            print(f"{kind:<8} of all, every step: x{middle:.3f} [{low:.3f}, {high:.3f}]; at the default {middle - 1:.3f} %"
                  f" of a step of {1000 * np.median([plain for _, plain in pairs]):.0f} ms")


if __name__ == "__main__":
    main()
