"""Kernels are compiled for processors that this one may not be: the linker must have nothing of theirs to hand to others."""

import os
import re
import subprocess
from pathlib import Path

BUILD = Path(os.environ.get("ECHELON_BUILD", Path(__file__).resolve().parents[2] / "build"))
SHARED = re.compile(r"^\S+ [VWu] ")  # weak or unique: one definition is taken for all


def shared_symbols(path):
    lines = subprocess.run(["nm", "-C", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if SHARED.search(line)]


def test_kernels_define_nothing_that_other_objects_could_be_given():
    objects = sorted(BUILD.glob("*/CMakeFiles/*_kernels_*.dir/**/*.o"))
    assert objects
    assert {str(path): shared_symbols(path) for path in objects if shared_symbols(path)} == {}


def test_a_template_of_a_library_is_found(tmp_path):
    source = tmp_path / "a.cc"
    source.write_text("template <class T> T twice(T x) { return x + x; }\nint four() { return twice(2); }\n")
    subprocess.run(["g++", "-O0", "-c", source, "-o", tmp_path / "a.o"], check=True)
    assert len(shared_symbols(tmp_path / "a.o")) == 1
