"""Rooms include only rooms below them; Parts do not know each other; a few headers have one place."""

import os
import re
from pathlib import Path

SOURCE = Path(os.environ.get("ECHELON_SOURCE", Path(__file__).resolve().parents[2]))
ROOMS = ("cluster", "comm", "sharding", "models", "runtime", "launch")  # from the ground up
LIGHT = ("cluster", "comm/ledger", "runtime/store", "runtime/recipe", "launch/options", "launch/command")
PARTS = (
    "sharding/exchange",
    "models/objectives",
    "models/adapters",
    "models/weight_ops",
    "models/backbones",
    "runtime/optimizers",
    "runtime/schedules",
    "runtime/sources",
)
HEAVY = re.compile(r"(ATen|c10|torch|cuda\w*)/|(mpi|nccl|cuda\w*)\.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def sources(root, folders=ROOMS):
    return sorted(
        path for folder in folders for path in (root / folder).rglob("*") if path.suffix in (".cc", ".h", ".cu")
    )


def includes(root, folders=ROOMS):
    """(file relative to the root, line, what it includes)."""
    for path in sources(root, folders):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                yield path.relative_to(root).as_posix(), number, match[1]


def room_of(path):
    return path.split("/")[0]


def is_light(path):
    """Options of Parts are light: `echelon describe` knows them all."""
    return any(path.startswith(folder + "/") for folder in LIGHT) or path.endswith(".pb.h")


def upward(root):
    return [
        f"{file}:{line} includes {header}, which lies above it"
        for file, line, header in includes(root)
        if room_of(header) in ROOMS and ROOMS.index(room_of(header)) > ROOMS.index(room_of(file))
    ]


def heavy_in_light(root):
    found = []
    for file, line, header in includes(root, LIGHT):
        own = room_of(header) in ROOMS
        if (own and not is_light(header)) or (not own and HEAVY.match(header)):
            found.append(f"{file}:{line} is light and includes {header}")
    return found


def part_of(root, path):
    """ "models/objectives/masked_lm" where `path` belongs to a Part, else None: a Part is what has a .proto."""
    folder, _, name = path.rpartition("/")
    stem = f"{folder}/{name.split('.')[0]}"
    return stem if folder in PARTS and (root / f"{stem}.proto").exists() else None


def parts_that_know_each_other(root):
    found = []
    for file, line, header in includes(root):
        part, other = part_of(root, file), part_of(root, header)
        if part and other and part != other:
            found.append(f"{file}:{line} includes {header}: what two Parts share moves a floor down")
    return found


def misplaced(root, pattern, *places):
    """Includes that match `pattern` outside of `places`."""
    return [
        f"{file}:{line} includes {header}"
        for file, line, header in includes(root, (*ROOMS, "tests"))
        if re.search(pattern, header) and not file.startswith(places)
    ]


def unpickling(root):
    pattern = re.compile(r"torch::(load|pickle_load|jit::)|\btorch\.load\b|\bimport pickle\b|\bpickle\.load")
    files = sources(root) + sorted((root / "launch").rglob("*.py"))
    return [path.relative_to(root).as_posix() for path in files if pattern.search(path.read_text())]


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_no_room_includes_one_above_it():
    assert upward(SOURCE) == []


def test_an_upward_include_is_found(tmp_path):
    write(tmp_path, {"comm/group.cc": '#include "comm/group.h"\n#include "sharding/unit.h"\n'})
    assert upward(tmp_path) == ["comm/group.cc:2 includes sharding/unit.h, which lies above it"]


def test_light_targets_include_only_light_things():
    assert heavy_in_light(SOURCE) == []


def test_a_heavy_include_in_a_light_target_is_found(tmp_path):
    write(
        tmp_path,
        {
            "runtime/store/a.cc": '#include "comm/group.h"\n#include <ATen/ATen.h>\n#include "comm/ledger/ledger.h"\n',
            "cluster/b.cc": "#include <mpi.h>\n",
            "launch/command/c.cc": '#include "models/objectives/x.pb.h"\n',
        },
    )
    assert len(heavy_in_light(tmp_path)) == 3


def test_parts_do_not_include_each_other():
    assert parts_that_know_each_other(SOURCE) == []


def test_parts_that_know_each_other_are_found(tmp_path):
    write(
        tmp_path,
        {
            "models/objectives/a.proto": "",
            "models/objectives/b.proto": "",
            "models/objectives/shared.h": "",
            "models/objectives/a.cc": '#include "models/objectives/a.pb.h"\n#include "models/objectives/b.pb.h"\n'
            '#include "models/objectives/shared.h"\n',
        },
    )
    assert len(parts_that_know_each_other(tmp_path)) == 1


def test_mpi_and_nccl_are_spoken_in_the_backends_only():
    assert misplaced(SOURCE, r"(^|/)(mpi|nccl)\.h$", "comm/backends/") == []


def test_nobody_includes_all_of_torch():
    assert misplaced(SOURCE, r"^torch/torch\.h$") == []


def test_glog_stays_behind_one_source():
    assert misplaced(SOURCE, r"^glog/", "cluster/base/log.cc") == []


def test_a_misplaced_include_is_found(tmp_path):
    write(tmp_path, {"sharding/a.cc": "#include <mpi.h>\n", "comm/backends/mpi.cc": "#include <mpi.h>\n"})
    assert misplaced(tmp_path, r"(^|/)(mpi|nccl)\.h$", "comm/backends/") == ["sharding/a.cc:1 includes mpi.h"]


def test_nothing_is_unpickled():
    assert unpickling(SOURCE) == []


def test_unpickling_is_found(tmp_path):
    write(tmp_path, {"runtime/a.cc": "auto x = torch::pickle_load(data);\n", "launch/b.py": "import pickle\n"})
    assert unpickling(tmp_path) == ["runtime/a.cc", "launch/b.py"]
