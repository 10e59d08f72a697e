"""`echelon drill`: each fault is made for real, noticed, survived, and reported; what cannot be drilled is refused in one sentence.

usage: drill_judge.py BUILD [FAULT…]
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tiny_job

FAULTS = {"kill": "killed by signal 9", "crash": "killed by signal 11", "pause": "", "stop": "stopped", "request": "stopping", "twice": "stopping", "launcher": "", "second": "",
          "flip": "stopping", "cut": "stopping", "lost": "stopping", "hold": "alive, not advancing|every rank that is seen waits", "slow": "",
          "starter": "killed by signal 9", "all": "", "full": "warning: no checkpoint, training goes on: .* file too large"}
# Nothing is repeated where nothing was lost; the others go on from the last checkpoint, three steps apart, or from the one before it
# where that was still being written.
REPEATED = {"kill": 6, "crash": 6, "pause": 0, "stop": 6, "request": 0, "launcher": 6, "second": 0, "flip": 60, "cut": 60,
            "lost": 60, "twice": 6, "hold": 6, "slow": 0, "starter": 6, "all": 6, "full": 0}
# The first job must outlast the start of the second, also on a fast machine.
STEPS = {"second": 300}


def drill(build: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([f"{build}/bin/echelon", "drill", *words], capture_output=True, text=True, timeout=180)


def check_fault(build: str, recipe: Path, work: Path, fault: str) -> None:
    done = drill(build, fault, str(recipe), f"steps={STEPS.get(fault, 60)}", "--ranks=2", f"--out={work / fault}", "--seed=3")
    assert done.returncode == 0, f"{fault}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "bits       equal: metrics and exported weights" in done.stdout, done.stdout
    assert re.search(FAULTS[fault], done.stdout), done.stdout
    new_step, repeated = re.search(r"new step   ([\d.]+) s after it, (\d+) repeated", done.stdout).groups()
    assert int(repeated) <= REPEATED[fault], done.stdout
    print(f"{fault}: new step after {new_step} s, {repeated} repeated, bits equal")


def check_refusals(build: str, recipe: Path, work: Path) -> None:
    refused = {
        ("kil", str(recipe)): (2, 'usage: kil: no such fault; did you mean "kill"'),
        ("kill",): (2, "usage: drill: needs a fault and a recipe"),
        ("kill", str(work / "none.textproto"), f"--out={work / 'refused'}"): (3, "recipe: "),
    }
    for words, (code, sentence) in refused.items():
        done = drill(build, *words)
        assert done.returncode == code and sentence in done.stderr, f"{words}: {done.returncode} {done.stderr}"
    assert "SIGKILL of a rank" in drill(build, "--list").stdout


def main() -> int:
    build, chosen = sys.argv[1], sys.argv[2:] or list(FAULTS)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        recipe = tiny_job.write_recipe(work)
        check_refusals(build, recipe, work)
        for fault in chosen:
            check_fault(build, recipe, work, fault)
    return 0


if __name__ == "__main__":
    sys.exit(main())
