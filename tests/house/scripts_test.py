"""Scripts can be read by bash, and end at the first failure."""

import os
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("ECHELON_SOURCE", Path(__file__).resolve().parents[2]))
SCRIPTS = ("quickstart", "check", ".ci/run", "cmake/setup.sh", "tests/mpirun_test", "tests/bench/run")
SETUP = SOURCE / "cmake" / "setup.sh"


def bash(text, folder):
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=folder, timeout=60, check=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_the_script(name):
    assert bash(f"bash -n {SOURCE / name}", SOURCE).stderr == ""
    assert name.endswith(".sh") or os.access(SOURCE / name, os.X_OK)


def test_the_first_failure_ends_a_script_with_its_reason(tmp_path):
    result = bash(f". {SETUP}; say begin; ls /nowhere; say end", tmp_path)
    assert result.returncode == 2 and "=== begin" in result.stdout and "=== end" not in result.stdout
    assert "ls /nowhere ended with 2" in result.stderr


def test_a_missing_package_is_found_and_an_installed_one_is_not(tmp_path):
    result = bash(f". {SETUP}; missing_packages bash no-such-package", tmp_path)
    assert result.stdout == "no-such-package\n"


def test_python_packages_are_left_alone_while_the_requirements_stay(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/true")
    (tmp_path / "requirements.txt").write_text("tqdm\n")
    marker = "sha256sum requirements.txt | cut -d ' ' -f 1 > .venv/requirements.sha256"
    assert "all there" in bash(f"{marker}; . {SETUP}; python_packages .venv requirements.txt", tmp_path).stdout
    (tmp_path / "requirements.txt").write_text("tqdm\nnumpy\n")
    assert "all there" not in bash(f". {SETUP}; python_packages .venv requirements.txt", tmp_path).stdout


def test_prepared_tokens_are_not_prepared_again(tmp_path):
    (tmp_path / "corpus" / "text").mkdir(parents=True)
    (tmp_path / "corpus" / "text" / "train.meta.json").write_text("{}")
    result = bash(f". {SETUP}; prepare_tokens text train:bpe:4096", tmp_path)
    assert result.returncode == 0 and "corpus/text is there" in result.stdout
