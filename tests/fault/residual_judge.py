"""SIGKILL of a run whose exchange keeps residuals: they go on with the same bits on the same ranks, and keep their sum on others.

usage: residual_judge.py BUILD
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tiny_job
from safetensors import safe_open

RANKS = 4
EXCHANGES = {"TopK": "fraction: 0.05 exact_steps: 1", "PowerSgd": "rank: 2 exact_steps: 1"}
LAYOUTS = [{"dp": 2, "tp": 1, "zero": 3}, {"dp": 1, "tp": 2, "zero": 1}, {"dp": 1, "tp": 1, "zero": 0}]


def break_run(build, recipe, run, draws) -> Path:
    """Kills a rank once a checkpoint is there; the newest."""
    process = tiny_job.start(build, recipe, run, RANKS, "sharding.zero=2")
    while process.poll() is None and not list((run / "checkpoints").glob("step-*")):
        time.sleep(0.01)
    os.kill(draws.choice(tiny_job.rank_pids(run)), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 6, f"exit code {process.returncode}"
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def residual_sums(checkpoint) -> dict[str, np.ndarray]:
    """Of every tensor, over all ranks, in float64."""
    pieces = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            sharding = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for name in file.keys():
                if name.startswith("exchange.residual."):
                    tensor = name.split(".", 3)[3]
                    pieces.setdefault(tensor, []).append((sharding[name]["saved_offsets"], file.get_tensor(name).astype(np.float64)))
    sums = {}
    for tensor, parts in pieces.items():
        shape = [max(offset[dim] + part.shape[dim] for offset, part in parts) for dim in range(parts[0][1].ndim)]
        sums[tensor] = np.zeros(shape)
        for offset, part in parts:
            sums[tensor][tuple(slice(first, first + size) for first, size in zip(offset, part.shape))] += part
    return sums


def check_sums(build, checkpoint, work) -> None:
    before = residual_sums(checkpoint)
    assert max(np.abs(sum).max() for sum in before.values()) > 0, "no residual to speak of"
    jobs = [{"do": "reshard", "checkpoint": str(checkpoint), "out": str(work / f"layout{i}")} | layout for i, layout in enumerate(LAYOUTS)]
    (work / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([f"{build}/bin/model_driver", work / "jobs.json"], capture_output=True, text=True, check=True)
    assert "error" not in done.stdout, done.stdout
    for job in jobs:
        after = residual_sums(Path(job["out"]) / "checkpoints" / checkpoint.name)
        assert after.keys() == before.keys()
        ulps = max((np.abs(after[name] - sum) / np.spacing(np.abs(sum).astype(np.float32))).max() for name, sum in before.items())
        print(f"dp={job['dp']} tp={job['tp']} zero={job['zero']}: sums of residuals within {ulps:.2g} units in the last place")
        assert ulps <= 1


def check(build, recipe, work, draws) -> None:
    whole, broken, other = work / "whole", work / "broken", work / "other"
    tiny_job.finish(build, recipe, whole, RANKS, "sharding.zero=2")
    checkpoint = break_run(build, recipe, broken, draws)
    check_sums(build, checkpoint, work)
    shutil.copytree(broken, other)
    tiny_job.finish(build, recipe, other, 2, "sharding.zero=3", "mesh.tp=2")
    tiny_job.finish(build, recipe, broken, RANKS, "sharding.zero=2")
    assert tiny_job.metrics(broken) == tiny_job.metrics(whole), "metrics of the continued run differ"
    assert tiny_job.weights(broken) == tiny_job.weights(whole), "weights of the continued run differ"
    last = {run: tiny_job.losses(run)[tiny_job.STEPS] for run in (whole, other)}
    print(f"killed behind {checkpoint.name}: the same bits on the same ranks; last loss on others {last[other]:.4f}, unbroken {last[whole]:.4f}")


def main() -> int:
    seed = int(time.time())
    print(f"seed {seed}")
    for exchange, options in EXCHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            recipe = tiny_job.write_recipe(Path(folder))
            recipe.write_text(recipe.read_text() + f"exchange {{ [echelon/{exchange}] {{ {options} }} }}\n")
            print(exchange)
            check(sys.argv[1], recipe, Path(folder), random.Random(seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
