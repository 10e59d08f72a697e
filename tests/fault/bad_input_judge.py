"""Bad input gets one sentence and its exit code, on one rank and on two, and no hang.

usage: bad_input_judge.py BUILD
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peft
import tiny_job
import torch
import transformers
from safetensors.torch import load_file, save_file

LIMIT_SECONDS = 60


class Judge:
    def __init__(self, build: str, work: Path):
        self.build, self.work, self.failures, self.cases = build, work, 0, 0
        self.recipe = tiny_job.write_recipe(work)

    def expect(self, name: str, code: int, pattern: str, *arguments: str, ranks: tuple[int, ...] = (1, 2)) -> None:
        """The command ends with `code`, and the last line that it prints matches `pattern`."""
        for count in ranks:
            self.cases += 1
            command = [f"{self.build}/bin/echelon", *arguments, f"--ranks={count}"]
            began = time.monotonic()
            result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
            lines = result.stderr.strip().splitlines() or [""]
            good = result.returncode == code and lines[-1].startswith("echelon: ") and re.search(pattern, lines[-1])
            good = good and len(lines[-1]) < 600
            self.failures += not good
            print(f"{'ok    ' if good else 'FAILED'} {name}, {count} rank(s), {time.monotonic() - began:.1f} s: "
                  f"exit {result.returncode} (want {code}): {lines[-1][:220]}")

    def train(self, name: str, code: int, pattern: str, *more: str, recipe: Path | None = None, **options) -> None:
        out = self.work / f"run-{self.cases}"
        self.expect(name, code, pattern, "train", str(recipe or self.recipe), f"--out={out}", "--max_restarts=0", *more, **options)

    def file(self, name: str, text: str) -> Path:
        path = self.work / name
        path.write_text(text)
        return path


def recipes(judge: Judge) -> None:
    judge.train("unknown field", 3, r'no field "lr"', "optimizer.lr=1")
    judge.train("wrong type", 3, r"steps", "steps=many")
    judge.train("unknown value", 3, r"BF61|precision", "precision=BF61")
    base = judge.recipe.read_text()
    typo = judge.file("typo.textproto", base.replace("echelon/AdamW", "echelon/AdamV"))
    judge.train("unknown Part", 3, r"AdamW", recipe=typo)
    judge.train("missing parent", 3, r"no_such_recipe", recipe=judge.file("orphan.textproto", 'parent: "no_such_recipe"'))
    judge.file("a.textproto", 'parent: "b.textproto"')
    judge.file("b.textproto", 'parent: "a.textproto"')
    judge.train("circle of parents", 3, r"a\.textproto", recipe=judge.work / "a.textproto")
    judge.train("30 kB of braces", 3, r"recipe", recipe=judge.file("deep.textproto", "model {" * 5000), ranks=(1,))
    judge.train("pipeline axis", 3, r"pp|pipeline", "mesh.pp=2", ranks=(2,))
    judge.train("ranks that tp does not divide", 3, r"tp", "mesh.tp=3", ranks=(2,))
    judge.train("encoder objective on a decoder", 3, r"needs an encoder", recipe=judge.file("masked.textproto", base.replace("CausalLm", "MaskedLm")))


def data(judge: Judge) -> None:
    judge.train("missing data", 4, r"nowhere", f"data.train.path={judge.work}/nowhere")
    liar = judge.work / "liar"
    for suffix in (".bin", ".idx", ".meta.json"):
        Path(f"{liar}{suffix}").write_bytes(Path(f"{judge.work}/corpus{suffix}").read_bytes())
    Path(f"{liar}.bin").write_bytes(Path(f"{liar}.bin").read_bytes()[:100])
    judge.train("index that lies", 4, r"liar", f"data.train.path={liar}")
    judge.train("id beyond the vocabulary", 4, r"token id \d+ .*vocabulary", "model.architecture.vocabulary=50")


def models(judge: Judge) -> None:
    torch.manual_seed(0)
    good = judge.work / "gpt2"
    config = transformers.GPT2Config(vocab_size=tiny_job.VOCABULARY, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(good)
    tensors = load_file(good / "model.safetensors")
    base = judge.recipe.read_text()
    start, end = base.index("model {"), base.index("objective")

    def load(name: str, pattern: str, change) -> None:
        folder = judge.work / re.sub(r"\W", "_", name)
        folder.mkdir()
        (folder / "config.json").write_bytes((good / "config.json").read_bytes())
        (folder / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes())
        change(folder)
        recipe = judge.file(f"{folder.name}.textproto", f'{base[:start]}model {{ load: "{folder}" }}\n{base[end:]}')
        judge.train(name, 4, pattern, recipe=recipe, ranks=(2,))

    def save(folder: Path, changed: dict) -> None:
        save_file(changed, folder / "model.safetensors", {"format": "pt"})

    def header(folder: Path, change) -> None:
        path = folder / "model.safetensors"
        blob = path.read_bytes()
        size = struct.unpack("<Q", blob[:8])[0]
        text = change(json.loads(blob[8 : 8 + size]))
        path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + size :])

    def overlap(entries: dict) -> bytes:
        names = [name for name in entries if name != "__metadata__"]
        entries[names[1]]["data_offsets"] = entries[names[0]]["data_offsets"]
        return json.dumps(entries).encode()

    def family(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"gpt2"', '"gpt9"'))

    first = "transformer.h.0.ln_1.weight"
    load("truncated weights", r"model\.safetensors", lambda f: os.truncate(f / "model.safetensors", 5000))
    load("header longer than the file", r"model\.safetensors", lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}"))
    load("overlapping tensors", r"model\.safetensors", lambda f: header(f, overlap))
    load("key that stands twice", r"model\.safetensors", lambda f: header(f, lambda e: json.dumps(e)[:-1].encode() + b', "__metadata__": {}}'))
    load("tensor missing", r"ln_1\.weight", lambda f: save(f, {k: v for k, v in tensors.items() if k != first}))
    load("tensor of another shape", r"ln_1\.weight", lambda f: save(f, {**tensors, first: torch.ones(31)}))
    load("unknown family", r"gpt9", family)


def adapters(judge: Judge) -> None:
    base = judge.work / "gpt2"
    good = judge.work / "adapter"
    model = transformers.GPT2LMHeadModel.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")).save_pretrained(good)
    tensors, config = load_file(good / "adapter_model.safetensors"), json.loads((good / "adapter_config.json").read_text())
    first = next(iter(tensors))
    merged = judge.work / "merged"

    def train(name: str, pattern: str, lines: str) -> None:
        recipe = judge.file(f"{re.sub(r'[^a-z]', '_', name)}.textproto", judge.recipe.read_text() + lines)
        judge.train(name, 3, pattern, recipe=recipe, ranks=(2,))

    def load(name: str, pattern: str, weights: dict, **changed) -> None:
        folder = judge.work / re.sub(r"\W", "_", name)
        folder.mkdir()
        save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changed}))
        arguments = (f"--model={base}", f"--adapter={folder}", "--prompt_ids=1,2")
        judge.expect(name, 4, pattern, "generate", *arguments, ranks=(1,))
        judge.expect(f"{name}, merged", 4, pattern, "merge", *arguments[:2], f"--out={merged}", ranks=(2,))

    train("targets that match nothing", r'"c_atn" matches no module.*did you mean "c_attn"', 'adapter { [echelon/Lora] { targets: "c_atn" } }')
    train("rank 0", r"rank", "adapter { [echelon/Lora] { rank: 0 } }")
    train("rank above the matrix", r"expected 1 to 32", "adapter { [echelon/Lora] { rank: 33 } }")
    train("unknown adapter", r"Lora", "adapter { [echelon/Lorra] {} }")
    train("pattern that matches no tensor", r"matches no tensor", 'trainable: "nothing"')
    train("PowerSgd of rank 0", r"rank", "exchange { [echelon/PowerSgd] { rank: 0 } }")
    load("unknown method", r"VERA.*LORA", tensors, peft_type="VERA")
    load("tensor of the adapter missing", r"also .*lora_", {k: v for k, v in tensors.items() if k != first})
    load("tensor of the adapter misshapen", r"wrong shape", {**tensors, first: torch.ones(3, 3)})
    load("adapter rank above the matrix", r"rank|shape", tensors, r=4000)
    judge.expect("merging onto another base", 4, r"another base", "merge", f"--model={base}", f"--adapter={other_base(judge, good)}", f"--out={merged}")
    forward = ("generate", f"--model={base}", "--prompt_ids=1,2", "--merge_adapters")
    judge.expect("merging no adapter", 2, r"there is no adapter to fold in", *forward)
    judge.expect("merging onto shards of another base", 4, r"another base", *forward, f"--adapter={other_base(judge, good)}")
    judge.expect("unmerging what was not merged", 4, r"was not merged", "unmerge", f"--model={base}", f"--out={merged}")
    subprocess.run([f"{judge.build}/bin/echelon", "merge", f"--model={base}", f"--adapter={good}", f"--out={merged}"], check=True)
    changed = load_file(merged / "model.safetensors")
    changed["transformer.h.0.attn.c_attn.weight"][0, 0] += 1
    save_file(changed, merged / "model.safetensors", {"format": "pt"})
    judge.expect("unmerging what was changed", 4, r"was changed since", "unmerge", f"--model={merged}", f"--out={judge.work}/back")


def other_base(judge: Judge, good: Path) -> Path:
    folder = judge.work / "of_another_base"
    shutil.copytree(good, folder, dirs_exist_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "echelon_base_hash": "0" * 32}))
    return folder


def flip_bit(checkpoint: Path) -> None:
    shard = sorted(checkpoint.glob("shard-*"))[-1]
    with shard.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def pass_over_damage(judge: Judge) -> None:
    """A newest checkpoint with one flipped bit is named and set aside, and the run goes on from the one before, with its bits."""
    run = judge.work / "flipped"
    tiny_job.finish(judge.build, judge.recipe, run, 2)
    metrics, newest = tiny_job.metrics(run), sorted((run / "checkpoints").glob("step-*"))[-1]
    flip_bit(newest)
    process = tiny_job.start(judge.build, judge.recipe, run, 2)
    errors = process.communicate(timeout=60)[1]
    said = re.search(f"warning: {newest.name} was passed over.*shard-00002.*written by rank 1", errors)
    passed = process.returncode == 0 and said is not None
    judge.failures += not passed
    print(f"{'ok    ' if passed else 'FAILED'} newest checkpoint with one flipped bit: {process.returncode} {said and said[0]}")
    same = tiny_job.metrics(run) == metrics and len(list((run / "damaged").iterdir())) == 1
    judge.failures += not same
    print(f"{'ok    ' if same else 'FAILED'} the steps behind it are done again with the same bits")


def scrub(judge: Judge) -> None:
    """A bit that flips in an old checkpoint of a live run is found and named, that step is set aside, and the run goes on."""
    run = judge.work / "scrubbed"
    process = tiny_job.start(judge.build, judge.recipe, run, 2, "steps=1000000", "evaluate.every=0", "checkpoint.every=50",
                             "checkpoint.keep=1000", "checkpoint.scrub_minutes=0.001")
    steps = lambda: sorted((run / "checkpoints").glob("step-*"))
    while len(steps()) < 3 and process.poll() is None:
        time.sleep(0.02)
    oldest = steps()[0]
    flip_bit(oldest)
    said, found = [], None
    while not found and process.poll() is None:
        said.append(process.stderr.readline())
        found = re.match(f"warning: {oldest.name} was moved to .*/damaged/{oldest.name}", said[-1])
    more = len(steps()) + 1
    while len(steps()) < more and process.poll() is None:
        time.sleep(0.02)
    process.terminate()
    errors = process.communicate(timeout=60)[1]
    named = [line for line in said if re.match(f"warning: {oldest.name}: tile 0 of shard-00002.*written by rank 1.* is damaged", line)]
    logged = oldest.name in (run / "log" / "rank-00000.log").read_text()
    whole = all(tiny_job.is_whole(judge.build, step) for step in (steps()[0], steps()[-1]))
    right = process.returncode == 75 and len(named) == 1 and logged and whole and not oldest.exists()
    judge.cases += 1
    judge.failures += not right
    print(f"{'ok    ' if right else 'FAILED'} flipped bit in an old checkpoint of a live run: {process.returncode} {named}\n{errors}")


def storage(judge: Judge) -> None:
    run = judge.work / "busy"
    tiny_job.finish(judge.build, judge.recipe, run, 2)
    process = tiny_job.start(judge.build, judge.recipe, run, 1, "steps=100000")
    while not tiny_job.is_held(run) and process.poll() is None:
        time.sleep(0.02)
    judge.expect("folder of a live run", 5, r"busy|held|live", "train", str(judge.recipe), f"--out={run}")
    process.terminate()
    errors = process.communicate(timeout=30)[1]
    stopped = process.returncode == 75
    judge.failures += not stopped
    print(f"{'ok    ' if stopped else 'FAILED'} SIGTERM saves and ends with 75: {process.returncode} {errors.splitlines()[-1]}")

    for folder in sorted((run / "checkpoints").glob("step-*")):
        flip_bit(folder)
    judge.expect("every checkpoint with one flipped bit", 5, r"none of the checkpoints.* is whole.*shard-00001", "train", str(judge.recipe),
                 f"--out={run}", "steps=100000")
    pass_over_damage(judge)
    scrub(judge)

    full = judge.work / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", full], check=True)
    try:
        judge.expect("no space left", 5, r"space|free", "train", str(judge.recipe), f"--out={full}/run", "--max_restarts=0", ranks=(2,))
        for background in ("true", "false"):
            run_out_of_space_for_a_while(judge, full, background)
    finally:
        subprocess.run(["umount", full], check=True)


def shared_folders(judge: Judge) -> None:
    """A run folder in which another user could change things is refused before anything is written into it."""
    for name, change, pattern in (
        ("run folder that anyone may write to", lambda run: run.chmod(0o777), r"RUNDIR_UNSAFE: anyone may write.*--trust_dir"),
        ("run folder of another user", lambda run: os.chown(run, 12345, 12345), r"RUNDIR_UNSAFE: .*another user.*--trust_dir"),
    ):
        run = judge.work / re.sub(r"\W", "_", name)
        run.mkdir()
        change(run)
        judge.expect(name, 3, pattern, "train", str(judge.recipe), f"--out={run}")
        untouched = not list(run.iterdir())
        judge.failures += not untouched
        print(f"{'ok    ' if untouched else 'FAILED'} nothing was written into it")
        tiny_job.finish(judge.build, judge.recipe, run, 2, "--trust_dir")


def run_out_of_space_for_a_while(judge: Judge, full: Path, background: str) -> None:
    """A save that fails on the way is a warning; the last one finds room again and is whole."""
    run = full / background
    process = tiny_job.start(judge.build, judge.recipe, run, 2, "steps=1000000", f"checkpoint.background={background}")
    said = ""
    while "training goes on" not in said and process.poll() is None:
        said += process.stderr.readline()
    subprocess.run(["mount", "-o", "remount,size=100m", full], check=True)
    process.terminate()
    errors = process.communicate(timeout=60)[1]
    whole = tiny_job.is_whole(judge.build, run / "checkpoints" / "latest")
    right = process.returncode == 75 and whole and not list((run / "inflight").glob("*"))
    judge.cases += 1
    judge.failures += not right
    print(f"{'ok    ' if right else 'FAILED'} no space for a while, background {background}: {process.returncode} {errors.splitlines()[-1]}")
    shutil.rmtree(run)
    subprocess.run(["mount", "-o", "remount,size=300k", full], check=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(sys.argv[1], Path(folder))
        for part in (recipes, data, models, adapters, shared_folders, storage):
            part(judge)
        print(f"{judge.cases} cases, {judge.failures} failed")
        return 1 if judge.failures else 0


if __name__ == "__main__":
    sys.exit(main())
