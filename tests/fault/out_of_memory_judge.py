"""A rank that the system kills for want of memory is said to have died of that, with exit code 8, and is not started again.

usage: out_of_memory_judge.py BUILD
Ends with 77 (not run) without root or a memory control group.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tiny_job

NOT_RUN = 77
GROUPS = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}
LIMIT_BYTES = 600 << 20
TOO_LARGE = ("model.architecture.width=1024", "model.architecture.layers=12")  # 2.4 GB of state


class MemoryGroup:
    """with MemoryGroup() as group: subprocess.run([…], preexec_fn=group.enter)"""

    def __init__(self):
        self.folder = None
        for above, limit in GROUPS.items():
            folder = above / f"echelon-test-{os.getpid()}"
            try:
                folder.mkdir()
                (folder / limit).write_text(str(LIMIT_BYTES))
            except OSError:
                if folder.is_dir():
                    folder.rmdir()
                continue
            self.folder = folder
            return

    def __enter__(self) -> "MemoryGroup":
        return self

    def __exit__(self, *_) -> None:
        if self.folder:
            self.folder.rmdir()

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, MemoryGroup() as group:
        if not group.folder:
            print("not run: no control group of memory can be made here")
            return NOT_RUN
        work = Path(folder)
        for ranks in (1, 2):
            words = tiny_job.command(sys.argv[1], tiny_job.write_recipe(work), work / f"run{ranks}", ranks, *TOO_LARGE)
            words = [word for word in words if not word.startswith("--max_restarts")]
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, preexec_fn=group.enter)
            assert done.returncode == 8 and "restart" not in done.stderr, f"{done.returncode}: {done.stderr}"
            last = done.stderr.splitlines()[-1]
            assert last.startswith("echelon: memory: rank ") and "killed by the system, which was out of memory" in last, last
            print(f"{ranks} rank(s): {last}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
