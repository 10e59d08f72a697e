"""The command that people type is light, and the libraries it stands on stay so."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("ECHELON_SOURCE", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("ECHELON_BUILD", SOURCE / "build"))
TORCH = Path(os.environ.get("ECHELON_TORCH", next(SOURCE.glob(".venv/lib/python3*/site-packages/torch"), SOURCE)))
LIGHT_LIBRARIES = ("cluster", "ledger", "store", "recipe", "arguments", "launch")
HEAVY_LIBRARY = re.compile(r"lib(torch|c10|mpi|open-pal|open-rte|nccl|cuda)")
HEAVY_SYMBOL = re.compile(r"\b(at|c10|torch)::|\bMPI_|\bnccl[A-Z]")


def output(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=100).stdout


def heavy_symbols(path):
    return sorted(
        {
            line.strip()
            for line in output("nm", "-C", "--undefined-only", path).splitlines()
            if HEAVY_SYMBOL.search(line)
        }
    )


def test_the_command_loads_neither_libtorch_nor_mpi():
    loaded = output("ldd", BUILD / "bin" / "echelon")
    assert "libc.so" in loaded
    assert [line for line in loaded.splitlines() if HEAVY_LIBRARY.search(line)] == []


@pytest.mark.parametrize("name", LIGHT_LIBRARIES)
def test_light_libraries_use_no_symbol_of_libtorch_or_mpi(name):
    [library] = BUILD.rglob(f"libechelon_{name}.a")
    assert heavy_symbols(library) == []


def test_a_heavy_library_is_recognised():
    [library] = BUILD.rglob("libechelon_comm.a")
    assert heavy_symbols(library) != []


def dynamic_symbols(path, *kind):
    lines = output("nm", "-D", *kind, path).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip()}


def test_libtorch_defines_nothing_that_our_protobuf_uses():
    """LibTorch hides a protobuf of its own; a symbol of both would be taken from whichever library comes first."""
    torch = dynamic_symbols(TORCH / "lib" / "libtorch_cpu.so", "--defined-only")
    [protobuf] = [
        line.split()[2] for line in output("ldd", BUILD / "bin" / "echelon").splitlines() if "libprotobuf.so" in line
    ]
    ours = {name for name in dynamic_symbols(protobuf) if re.match(r"_ZN[KV]?6google8protobuf", name)}
    assert any(name.startswith("_ZN2at") for name in torch) and len(ours) > 1000
    assert sorted(torch & ours) == []


def test_help_is_there_at_once():
    """Milliseconds where LibTorch would take half a second: the fastest of a few, whatever else the machine does."""

    def seconds():
        begin = time.monotonic()
        assert "train" in output(BUILD / "bin" / "echelon", "--help")
        return time.monotonic() - begin

    assert min(seconds() for _ in range(10)) < 0.25


def recipe_names():
    folder = SOURCE / "launch" / "recipes"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.textproto"))


def test_every_recipe_is_listed():
    listed = output(BUILD / "bin" / "echelon", "recipes").split()
    assert recipe_names() != []
    assert [name for name in recipe_names() if name not in listed] == []
