"""Replicas that train apart beside synchronous training at the same tokens: 200 steps together, then DiLoCo.

Prints the held-out loss of both, and the bytes of the steps apart as a share of what synchronous training sends in as many.
"""

import statistics
import tempfile
from pathlib import Path

from flags import parser_of
from small_run import echelon, prepare, read_metrics, write_recipe

DILOCO = """mesh {{ replicas: {replicas} }}
exchange {{ [echelon/DiLoCo] {{ inner_steps: {inner} synchronous_steps: {together} {more} }} }}
"""


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--replicas", type=int, default=4, help="one rank each (4)")
    parser.add_argument("--inner_steps", type=int, default=50, help="between two meetings (50)")
    parser.add_argument("--together", type=int, default=200, help="synchronous steps at the start (200)")
    parser.add_argument("--apart", type=int, default=2000, help="steps after them (2000)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each side (1)")
    parser.add_argument("--options", default="", help="further options of DiLoCo, as in a recipe")
    parser.add_argument("--batch", type=int, default=256, help="sequences of 64 tokens a step, of all replicas (256)")
    parser.add_argument("--width", type=int, default=32, help="of the decoder (32: 0.09 million parameters)")
    parser.add_argument("--learning_rate", type=float, default=6e-3, help="of both sides (6e-3)")
    return parser.parse_args()


def run(options, name, more, seed, folder):
    recipe = write_recipe(folder, options.together + options.apart, seed, more)
    out = folder / f"{name}-{seed}"
    echelon(options.build, "train", recipe, f"--ranks={options.replicas}", f"--out={out}", "sharding.zero=0",
            f"model.architecture.width={options.width}", f"optimizer.learning_rate={options.learning_rate}",
            f"batch.global={options.batch}", f"batch.micro={options.batch // options.replicas}")
    steps, held_out = read_metrics(out)
    apart = steps[options.together :]
    return held_out, sum(step["bytes_sent"].get("gradients", 0) + step["bytes_sent"].get("updates", 0) for step in apart)


def main():
    options = parse()
    prepare(options.build)
    diloco = DILOCO.format(replicas=options.replicas, inner=options.inner_steps, together=options.together, more=options.options)
    results = {}
    with tempfile.TemporaryDirectory(prefix="echelon-diloco-") as name:
        for side, more in (("synchronous", ""), ("DiLoCo", diloco)):
            runs = [run(options, side, more, seed, Path(name)) for seed in range(1, options.seeds + 1)]
            results[side] = statistics.mean(loss for loss, _ in runs), runs[0][1]
            print(f"{side:<12} held-out loss {results[side][0]:.4f} {[round(loss, 4) for loss, _ in runs]}, {results[side][1]:,} bytes apart", flush=True)
    (together, all_bytes), (apart, few_bytes) = results["synchronous"], results["DiLoCo"]
    print(f"DiLoCo: {100 * (apart / together - 1):+.2f} % loss, 1/{all_bytes / few_bytes:.1f} of the bytes")


if __name__ == "__main__":
    main()
