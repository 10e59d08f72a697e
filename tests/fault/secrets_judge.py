"""A thousand secrets in the environment, on the command line, in URLs, in a recipe and in a hostfile: runs that end well, crash, are
refused, hang, are aborted and stopped leave none of them in their folders or on the screen.

usage: secrets_judge.py BUILD [--secrets=N] [--seed=S]
"""

import argparse
import base64
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tiny_job

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
ELSEWHERE = 20  # on command lines and in files
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "SLURM_TOKEN", "OMPI_MCA_SECRET", "NCCL_KEY", "MY_VALUE")


class Secrets:
    """Made up from a seed; each is remembered."""

    def __init__(self, count: int, seed: int):
        self.draws, self.left, self.planted = random.Random(seed), count, []

    def word(self, length: int = 34) -> str:
        secret = "".join(self.draws.choices(ALPHABET, k=length - 3)) + "aZ9"
        self.planted.append(secret)
        self.left -= 1
        return secret

    def token(self) -> str:
        return self.draws.choice(("hf_", "ghp_", "sk-", "npm_")) + self.word()

    def url(self) -> str:
        return f"https://{self.draws.choice(('me', 'x'))}:{self.word(20)}@host.invalid/model"


class Judge:
    def __init__(self, build: str, recipe: Path, work: Path, secrets: Secrets):
        self.build, self.recipe, self.work, self.secrets = build, recipe, work, secrets
        self.screens, self.runs = [], 0

    def environment(self) -> dict:
        planted = {f"{self.secrets.draws.choice(NAMES)}_{i}": self.secrets.token() for i in range(self.secrets.left - ELSEWHERE)}
        return {**os.environ, **planted}

    def start(self, environment, *more: str, recipe=None) -> tuple:
        run = self.work / f"run-{self.runs}"
        self.runs += 1
        words = tiny_job.command(self.build, recipe or self.recipe, run, 2, *more)
        return run, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def end(self, name: str, process, *codes: int) -> None:
        screen = process.communicate(timeout=90)[0]
        self.screens.append((name, screen))
        assert process.returncode in codes, f"{name}: exit code {process.returncode}, not {codes}: {screen[-2000:]}"
        print(f"ok     {name}: exit {process.returncode}: {(screen.strip().splitlines() or [''])[-1][:160]}")

    def stop_one(self, name: str, environment, number: int, *codes: int) -> None:
        run, process = self.start(environment, "steps=1000000")
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        target = process.pid if number in (signal.SIGTERM, signal.SIGUSR2) else (tiny_job.rank_pids(run) or [process.pid])[-1]
        os.kill(target, number)
        if number == signal.SIGUSR2:
            time.sleep(1)
            os.kill(process.pid, signal.SIGTERM)
        self.end(name, process, *codes)

    def refuse(self, environment) -> None:
        """Each way in which a secret can be written down where it does not belong."""
        secrets = self.secrets
        cases = (
            (3, f"model.load={secrets.url()}"),
            (3, f"data.train.path=/nowhere?access_token={secrets.word()}"),
            (3, f"description={secrets.token()}"),
            (2, f"--launcher={secrets.token()}"),
            (3, f"optimizer={secrets.token()}"),
            (3, f"steps={secrets.token()}"),
            (2, f"--hosts=user:{secrets.word()}@host.invalid:2"),
            (2, f"--{secrets.token()}"),
            (3, f"--adapter={secrets.url()}"),
        )
        for code, argument in cases:
            self.end(f"refused {argument.split('=')[0][:16]}", self.start(environment, argument)[1], code)

    def hostfile(self, environment) -> None:
        path = self.work / "hostfile"
        lines = [f"# token={self.secrets.word()}" for _ in range(8)] + [f"{self.secrets.url()} slots=2"]
        path.write_text("\n".join(lines) + "\n")
        self.end("hostfile with secrets", self.start(environment, f"--hostfile={path}")[1], 2)

    def recipe_with_secrets(self, environment) -> None:
        path = self.work / "secret.textproto"
        path.write_text(self.recipe.read_text() + f'description: "{self.secrets.token()}"\n')
        self.end("recipe with a token", self.start(environment, recipe=path)[1], 3)
        path.write_text(self.recipe.read_text() + f'# {self.secrets.token()}\nmodel {{ load: "{self.secrets.url()}\n')
        self.end("recipe that does not parse", self.start(environment, recipe=path)[1], 3)

    def search(self) -> int:
        found = 0
        for name, screen in self.screens:
            found += report(f"the screen of {name}", screen.encode(), self.secrets.planted)
        for path in sorted(self.work.rglob("*")):
            if path.is_file() and path.name not in ("hostfile", "secret.textproto"):
                found += report(str(path), path.read_bytes(), self.secrets.planted)
        return found


def report(where: str, content: bytes, planted: list) -> int:
    """Also looks for what base64 makes of a secret."""
    leaks = [word for word in planted if word.encode() in content or base64.b64encode(word.encode())[:-2] in content]
    for word in leaks:
        print(f"FAILED {where} holds the secret {word}")
    return len(leaks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--secrets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        secrets = Secrets(options.secrets, options.seed)
        judge = Judge(options.build, tiny_job.write_recipe(work), work, secrets)
        environment = judge.environment()
        judge.end("a run that ends well", judge.start(environment)[1], 0)
        judge.stop_one("a rank that crashes", environment, signal.SIGSEGV, 6)
        judge.stop_one("a rank that is killed", environment, signal.SIGKILL, 6)
        judge.stop_one("a rank that aborts", environment, signal.SIGABRT, 6)
        judge.stop_one("a rank that stands still", environment, signal.SIGSTOP, 6)
        judge.stop_one("a run that is asked for its record and stopped", environment, signal.SIGUSR2, 75)
        judge.hostfile(environment)
        judge.recipe_with_secrets(environment)
        judge.refuse(environment)
        found = judge.search()
        print(f"{len(secrets.planted)} secrets planted, {judge.runs} runs, {found} found")
        return 1 if found or len(secrets.planted) < options.secrets else 0


if __name__ == "__main__":
    sys.exit(main())
