"""Runs of `echelon train` on the reference model, for what one kind of run costs beside another."""

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from reference_step import describe, refuse_busy_machine, write_inputs
from small_run import read_lines


@contextmanager
def inputs(options, headline):
    """A folder with model, tokens and recipe, which goes away; the machine and `headline` are printed. A busy machine is refused."""
    refuse_busy_machine(options)
    describe(headline)
    with tempfile.TemporaryDirectory(prefix="echelon-bench-") as place:
        write_inputs(Path(place), options)
        yield Path(place)


def train(options, folder, ranks, *fields, watch=lambda process: None):
    """The lines of its metrics. `watch` is called while it runs; a failure ends this program with the run's last line."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    words = [f"{options.build}/bin/echelon", "train", f"{folder}/reference_step.textproto", f"--ranks={ranks}", f"--out={folder}/run", *fields]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch(process)
    errors = process.communicate()[1]
    if process.returncode:
        sys.exit(f"echelon train ended with {process.returncode}: {errors.strip().splitlines()[-1:]}")
    return read_lines(folder / "run")
