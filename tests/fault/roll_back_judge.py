"""A run whose loss spikes, or that has more steps to leave out than it may, goes back to before and leaves out the samples that led
there: its bits are those of a run on data without them, on any number of kills. Where it may not, it goes on or ends as before.

usage: roll_back_judge.py BUILD
"""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numerics_judge
import numpy
import tiny_job

STEPS, BATCH, LENGTH = 51, 12, 16
SAMPLES = (STEPS + 12) * BATCH
BEFORE, FAULT, LAST = 33, 36, 37  # the checkpoint to go back to, the first poisoned step, and the second
LIMIT_SECONDS = 150
LAYOUTS = (2, ()), (1, ()), (2, ("sharding.zero=0",))
MAY = "numerics.roll_back=2"


def tokens_of_steps(first: int, last: int) -> slice:
    return slice((first - 1) * BATCH * LENGTH, last * BATCH * LENGTH)


def write_corpus(prefix: Path, tokens: numpy.ndarray) -> None:
    tiny_job.write_corpus(prefix)
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    index = prefix.with_suffix(".idx")
    head = index.read_bytes()[:34]  # up to the counts
    arrays = numpy.array([len(tokens)], numpy.int32).tobytes() + numpy.array([0, 0, 1], numpy.int64).tobytes()
    index.write_bytes(head + arrays)


def poisoned(poison, *stretches: tuple[int, int]) -> numpy.ndarray:
    """Few kinds of token, and `poison` in some steps."""
    draws = numpy.random.default_rng(5)
    tokens = draws.integers(5, 9, SAMPLES * LENGTH, dtype=numpy.uint16)
    for first, last in stretches:
        tokens[tokens_of_steps(first, last)] = poison(draws, (last - first + 1) * BATCH * LENGTH)
        tokens[tokens_of_steps(first, last).start] = 5  # the last target of the step before
    # What stands behind the sample before: the same with and without the stretch.
    tokens[LAST * BATCH * LENGTH] = tokens[BEFORE * BATCH * LENGTH]
    return tokens


def rare_tokens(draws: numpy.random.Generator, count: int) -> numpy.ndarray:
    return draws.integers(60, tiny_job.VOCABULARY, count, dtype=numpy.uint16)


def bad_token(_draws: numpy.random.Generator, count: int) -> numpy.ndarray:
    return numpy.full(count, numerics_judge.BAD_TOKEN, numpy.uint16)


def write_recipe(work: Path, name: str, tokens: numpy.ndarray, model: Path | None = None) -> Path:
    """In order and without dropout, which is drawn by the sample's number; evaluated on the same text whatever it trains on."""
    write_corpus(work / name, tokens)
    text = tiny_job.RECIPE.format(steps=STEPS, corpus=work / "clean").replace("dropout: 0.1", "dropout: 0")
    text = text.replace(f'"{work / "clean"}"', f'"{work / name}"', 1).replace("data {", "data { shuffle: false ")
    # Soon at rest, so that what is usual lies close together.
    text = text.replace("learning_rate: 3e-3", "learning_rate: 2e-2").replace("micro: 1", "micro: 6")
    if model:
        start, end = text.index("model {"), text.index("objective")
        text = f'{text[:start]}model {{ load: "{model}" }}\n{text[end:]}'
    recipe = work / f"{name}.textproto"
    recipe.write_text(text)
    return recipe


def roll_backs(run: Path) -> list[dict]:
    path = run / "roll_backs.json"
    return json.loads(path.read_text()) if path.exists() else []


def said_by(build: str, recipe: Path, run: Path, ranks: int, *more: str, code: int = 0) -> list[str]:
    words = tiny_job.command(build, recipe, run, ranks, *more)
    result = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert result.returncode == code, f"exit code {result.returncode}: {result.stderr}"
    return result.stderr.strip().splitlines()


def check_went_back(build: str, run: Path, reason: str) -> None:
    (one,) = roll_backs(run)
    assert (one["from_step"], one["to_step"]) == (LAST, BEFORE), one
    assert (one["first_sample"], one["samples"]) == (BEFORE * BATCH, (LAST - BEFORE) * BATCH) and reason in one["reason"], one
    lines = [line for line in tiny_job.metrics(run) if "eval" not in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)), "a step stands twice, or not at all"
    assert {line["step"]: line["rolled_back"] for line in lines if "rolled_back" in line} == {BEFORE + 1: LAST}
    assert not any(line.get("skipped") for line in lines)
    state = json.loads((run / f"checkpoints/step-{STEPS:08}" / "state.json").read_text())
    assert state["samples"] == (STEPS + LAST - BEFORE) * BATCH, state["samples"]
    shown = subprocess.run([f"{build}/bin/echelon", "inspect", str(run)], capture_output=True, text=True, check=True).stdout
    assert f"rolled back from step {LAST} to step {BEFORE}, {(LAST - BEFORE) * BATCH} samples left out: " in shown, shown


def without_roll_backs(run: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "rolled_back"} for line in tiny_job.metrics(run)]


def check_layouts(layouts, build: str, recipe: Path, without: Path, work: Path, name: str, reason: str, *more: str) -> Path:
    """Every layout goes back in the same step, and gets the bits of a run on data without what was left out. The first one's run."""
    for index, (ranks, layout) in enumerate(layouts):
        run, reference = work / f"{name}-{index}", work / f"{name}-{index}-without"
        said = said_by(build, recipe, run, ranks, MAY, *layout, *more)
        (line,) = [line for line in said if "the run goes back" in line]
        assert line.startswith(f"warning: step {LAST}: ") and reason in line, line
        check_went_back(build, run, reason)
        tiny_job.finish(build, without, reference, ranks, *layout)
        assert without_roll_backs(run) == tiny_job.metrics(reference), "metrics differ from those of data without the samples"
        assert tiny_job.weights(run) == tiny_job.weights(reference), "weights differ from those of data without the samples"
    print(f"{name}: {len(layouts)} layouts, the bits of a run without these samples: {line}")
    return work / f"{name}-0"


def check_waits_where_it_may_not(build: str, recipe: Path, work: Path) -> None:
    run = work / "waits"
    said = said_by(build, recipe, run, 1)
    assert [line for line in said if line.startswith(f"warning: step {LAST}: the loss spikes") and line.endswith("it goes on")], said
    assert not (run / "roll_backs.json").exists() and not (run / "damaged").exists()
    print("off: the run goes on")


def check_ends_when_used_up(build: str, work: Path) -> None:
    recipe = write_recipe(work, "twice", poisoned(rare_tokens, (FAULT, LAST), (FAULT + 10, LAST + 10)))
    said = said_by(build, recipe, work / "twice", 2, "numerics.roll_back=1", code=7)
    assert "the loss spikes" in said[-1] and "after 1 roll-back;" in said[-1], said[-1]
    said_by(build, recipe, work / "twice", 2, MAY)
    assert [one["to_step"] for one in roll_backs(work / "twice")] == [BEFORE, BEFORE + 6], roll_backs(work / "twice")
    print(f"used up: {said[-1]}; with one more allowed it goes on")


def check_goes_on_without_a_checkpoint(build: str, recipe: Path, work: Path) -> None:
    said = said_by(build, recipe, work / "none", 1, MAY, "checkpoint.every=1000")
    assert [line for line in said if "no checkpoint is from before it, so it goes on" in line], said
    assert not roll_backs(work / "none")


def kill_once(build: str, recipe: Path, run: Path, seconds: float, *more: str) -> bool:
    process = tiny_job.start(build, recipe, run, 2, *more)
    while len(pids := tiny_job.rank_pids(run)) < 2 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    try:
        os.kill(pids[-1], signal.SIGKILL)
        killed = True
    except (IndexError, ProcessLookupError):  # the run was over, or its ranks were
        killed = False
    process.communicate(timeout=LIMIT_SECONDS)
    return killed


def kill_at_the_roll_back(build: str, recipe: Path, run: Path, *more: str) -> None:
    """As soon as a checkpoint has been set aside, or the roll-back is written."""
    process = tiny_job.start(build, recipe, run, 2, *more)
    while process.poll() is None and not (run / "damaged").exists():
        time.sleep(0.0005)
    assert process.poll() is None, "the run was over before it rolled back"
    os.kill(tiny_job.rank_pids(run)[0], signal.SIGKILL)
    process.communicate(timeout=LIMIT_SECONDS)


def check_same(run: Path, whole: Path, what: str) -> None:
    assert roll_backs(run) == roll_backs(whole), f"{what}: {roll_backs(run)}"
    assert tiny_job.metrics(run) == tiny_job.metrics(whole), f"{what}: metrics differ"
    assert tiny_job.weights(run) == tiny_job.weights(whole), f"{what}: weights differ"


def check_kills(build: str, recipe: Path, whole: Path, work: Path, name: str, runs: int, *more: str) -> None:
    # Between the two steps of the fault: what was usual, and that the first lay high, is known again.
    run = work / f"{name}-within"
    said_by(build, recipe, run, 2, MAY, f"steps={FAULT}", *more)
    tiny_job.finish(build, recipe, run, 2, MAY, *more)
    check_same(run, whole, "stopped within the fault")
    run = work / f"{name}-at-it"
    kill_at_the_roll_back(build, recipe, run, MAY, *more)
    tiny_job.finish(build, recipe, run, 2, MAY, *more)
    check_same(run, whole, "killed at the roll-back")
    draws, kills = random.Random(7), 0
    for attempt in range(runs):
        run = work / f"{name}-kills-{attempt}"
        kills += sum(kill_once(build, recipe, run, draws.uniform(0.3, 1.5), MAY, *more) for _ in range(attempt + 1))
        tiny_job.finish(build, recipe, run, 2, MAY, *more)
        check_same(run, whole, f"killed up to {attempt + 1} times")
    print(f"{name}: stopped within the fault, killed at the roll-back, {kills} kills more: the same bits")


def main(build: str, _recipe: Path, work: Path) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    write_corpus(work / "clean", poisoned(rare_tokens))
    tokens = poisoned(rare_tokens, (FAULT, LAST))
    left_out = numpy.delete(tokens, tokens_of_steps(BEFORE + 1, LAST))
    spike, without = write_recipe(work, "spike", tokens), write_recipe(work, "without", left_out)
    whole = check_layouts(LAYOUTS, build, spike, without, work, "spike", "the loss spikes: ")
    check_waits_where_it_may_not(build, spike, work)
    check_ends_when_used_up(build, work)
    check_goes_on_without_a_checkpoint(build, spike, work)
    check_kills(build, spike, whole, work, "spike", 3)

    model = numerics_judge.llama_with_a_bad_token(work / "llama")
    tokens = poisoned(bad_token, (FAULT, LAST))
    nan = write_recipe(work, "nan", tokens, model)
    without = write_recipe(work, "nan-without", numpy.delete(tokens, tokens_of_steps(BEFORE + 1, LAST)), model)
    whole = check_layouts(LAYOUTS[:1], build, nan, without, work, "nan", "not finite, after 1 step", "numerics.skip=1")
    last = said_by(build, nan, work / "nan-off", 2, "numerics.skip=1", code=7)[-1]
    assert last.startswith(f"echelon: numerics: step {LAST}: loss nan"), last
    check_kills(build, nan, whole, work, "nan", 1, "numerics.skip=1")


if __name__ == "__main__":
    tiny_job.judge(main)
