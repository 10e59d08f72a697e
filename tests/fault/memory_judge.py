"""A bit that flips in a running rank's memory is found before the next update and never committed: the rank names tensor and step, the
launcher starts again from the last checkpoint, and the bits are those of an unbroken run.

usage: memory_judge.py BUILD
"""

import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import tiny_job
from safetensors import safe_open

STEPS = 200
TENSOR = "embeddings.positions"
LIMIT_SECONDS = 150
INPUT, COMPUTE = 1, 2  # phases
LAYOUTS = (1, ("sharding.zero=0",)), (2, ("sharding.zero=3",)), (2, ("sharding.zero=1", "precision=BF16"))
# One tensor that every step leaves as it is: its bytes are known whenever the flip comes.
KEPT = f'\nparameter_group {{ pattern: "{TENSOR}" learning_rate_factor: 0 weight_decay: 0 }}\n'


def words_of(build: str, recipe: Path, run: Path, ranks: int, more: tuple[str, ...]) -> list[str]:
    words = [word for word in tiny_job.command(build, recipe, run, ranks) if not word.startswith("--max_restarts")]
    return [*words, f"steps={STEPS}", "checkpoint.every=20", "evaluate.every=0", "batch.micro=6", "numerics.guard_share=1", *more]


def bytes_of(run: Path) -> bytes:
    """The tensor's first row as the first rank that saved it has it in memory."""
    (folder, *_) = sorted((run / "checkpoints").glob("step-*"))
    for file in sorted(folder.glob("shard-*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            names = [name for name in tensors.keys() if name.startswith(TENSOR)]
            if names:
                return tensors.get_tensor(names[0])[0].tobytes()
    raise AssertionError(f"{folder} does not hold {TENSOR}")


def places_of(pid: int, wanted: bytes) -> list[int]:
    """Addresses in writable memory of a process that hold these bytes."""
    found = []
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            if line.split()[1][:2] != "rw" or "[v" in line:
                continue
            try:
                memory.seek(begin)
                content = memory.read(end - begin)
            except OSError:
                continue
            at = content.find(wanted)
            while at >= 0:
                found.append(begin + at)
                at = content.find(wanted, at + 1)
    return found


def phase_of(pid: int) -> int:
    """What a rank is at, as it writes for the launcher."""
    (line,) = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith(".progress")]
    return struct.unpack("5q", Path(line.split()[-1]).read_bytes()[:40])[1]


def stop_between_updates(pid: int) -> None:
    """A flip within an update would be made part of it: no guard finds that. When one rank computes, none updates."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        if phase_of(pid) in (INPUT, COMPUTE):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.003)


def flip(pid: int, wanted: bytes) -> int:
    """One bit wherever the bytes stand: which copy is the master cannot be seen from outside. How many there were."""
    stop_between_updates(pid)
    places = places_of(pid, wanted)
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for place in places:
            memory.seek(place)
            memory.write(bytes([wanted[0] ^ 1]))
    os.kill(pid, signal.SIGCONT)
    return len(places)


def flip_one_bit(process: subprocess.Popen, run: Path) -> int:
    while process.poll() is None and not list(run.glob("checkpoints/step-*")):
        time.sleep(0.002)
    wanted = bytes_of(run)
    flipped = next((count for pid in tiny_job.rank_pids(run) if (count := flip(pid, wanted))), 0)
    assert process.poll() is None, "the run was over before a bit was flipped"
    return flipped


def check_layout(build: str, recipe: Path, work: Path, number: int, ranks: int, more: tuple[str, ...]) -> None:
    whole, run = work / f"whole-{number}", work / f"flipped-{number}"
    subprocess.run(words_of(build, recipe, whole, ranks, more), check=True, capture_output=True, timeout=LIMIT_SECONDS)
    process = subprocess.Popen(words_of(build, recipe, run, ranks, more), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    flipped = flip_one_bit(process, run)
    said = process.communicate(timeout=LIMIT_SECONDS)[1]
    assert flipped > 0, f"{TENSOR} was not found in memory"
    assert process.returncode == 0, said
    verdict = re.search(rf"echelon: comm: .*{TENSOR}.*: memory of rank \d changed after the update of step \d+, in elements .*", said)
    assert verdict, said
    assert "restart 1 from step " in said and "restart 2" not in said, said
    assert tiny_job.metrics(run) == tiny_job.metrics(whole), "metrics differ from the unbroken run's"
    assert tiny_job.weights(run) == tiny_job.weights(whole), "weights differ from the unbroken run's"
    for folder in sorted((run / "checkpoints").glob("step-*")):
        assert tiny_job.is_whole(build, folder), f"{folder.name} is not whole"
    print(f"{ranks} ranks {' '.join(more)}: {flipped} copies flipped: {verdict[0]}; the same bits after one restart")


def main(build: str, recipe: Path, work: Path) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    recipe.write_text(recipe.read_text() + KEPT)
    for number, (ranks, more) in enumerate(LAYOUTS):
        check_layout(build, recipe, work, number, ranks, more)


if __name__ == "__main__":
    tiny_job.judge(main)
