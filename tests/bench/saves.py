"""What saving costs a training: at once, in the background, and beside PyTorch's distributed checkpoint.

The reference model of 14 million parameters (168 MB of weights and moments) on one rank, saved every 10 steps. Rounds alternate runs without
saves, with saves that training waits for, and with saves in the background. Of the last two: what training waited in a save, and by how much
a save made steps longer besides. DCP saves the same tensors from one process, with its defaults; and with
its files brought to the disk, which it leaves out.
"""

import os
import shutil
import time

import numpy as np
from flags import parser_of
from reference_run import inputs, train

EVERY = 10
KINDS = {"none": ["checkpoint.every=100000"], "at once": [f"checkpoint.every={EVERY}", "checkpoint.background=false"],
         "background": [f"checkpoint.every={EVERY}", "checkpoint.background=true"]}


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="runs of each kind (4)")
    parser.add_argument("--steps", type=int, default=55, help="steps of a run; the first ten are left out (55)")
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="FP32")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    parser.set_defaults(task="full", zero=3)
    return parser.parse_args()


def run(folder, kind, options):
    """Seconds of each step, and what training waited for saves with it, behind the first ten."""
    lines = train(options, folder, 1, *KINDS[kind])[EVERY:]
    return np.array([(line["step_seconds"], line["checkpoint_seconds"]) for line in lines])


def make_durable(folder):
    """What DCP leaves to chance: that a save that has returned outlives a loss of power."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


def dcp_seconds(folder):
    """Medians of a save as it is, and with its files brought to the disk, as Echelon's always are."""
    import torch
    import torch.distributed.checkpoint as dcp
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    state = {f"{kind}.{name}": p.detach().clone() for name, p in model.named_parameters() for kind in ("weight", "m", "v")}
    seconds = []
    for i in range(5):
        began = time.monotonic()
        dcp.save(state, checkpoint_id=folder / f"dcp-{i}", no_dist=True)
        returned = time.monotonic()
        make_durable(folder / f"dcp-{i}")
        seconds.append((returned - began, time.monotonic() - began))
        shutil.rmtree(folder / f"dcp-{i}")
    return np.median(seconds, axis=0)


def main():
    options = parse()
    with inputs(options, f"{options.precision}, {options.rounds} rounds of {options.steps} steps; ms a save") as folder:
        measured = {kind: [] for kind in KINDS}
        for number in range(options.rounds):
            for kind in list(KINDS)[:: 1 if number % 2 == 0 else -1]:
                measured[kind].append(run(folder, kind, options))
        saves = (options.steps - EVERY - 1) // EVERY * options.rounds
        plain = np.concatenate(measured["none"])[:, 0]
        for kind in ("at once", "background"):
            times = np.concatenate(measured[kind])
            waited = times[:, 1].sum() / saves * 1000
            longer = (times[:, 0].mean() - plain.mean()) * len(times) / saves * 1000
            print(f"{kind:<11} waited {waited:7.1f}   steps longer {longer:7.1f}   (a step without saves: {np.median(plain) * 1000:.1f})")
        as_it_is, durable = dcp_seconds(folder) * 1000
        print(f"DCP         {as_it_is:14.1f}   {durable:.1f} with fsync of its files")


if __name__ == "__main__":
    main()
