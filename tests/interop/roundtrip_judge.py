"""Folders of transformers through Echelon and back, on random tiny models.

    roundtrip_judge.py model_driver [--models=30]

transformers writes, Echelon copies (import and export, on some mesh), transformers loads without a missing, unexpected
or mismatched key and saves, Echelon copies again: the same names and bytes of every tensor all along, and the same
config.
"""

import glob
import json
import os

import torch
from safetensors import safe_open

from random_models import judge_main, run_jobs, tiny_models

# Keys that describe the writer and not the model.
WRITER_KEYS = {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "_attn_implementation_autoset"}


def stored(folder):
    tensors = {}
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}, path
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def difference(a, b):
    if set(a) != set(b):
        return f"names differ: {sorted(set(a) ^ set(b))}"
    unequal = [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]
    return f"values differ: {unequal}" if unequal else None


def check_loading(tiny, out, again):
    """transformers loads `out`, gives the same config, and saves `again`."""
    model, info = tiny.class_().from_pretrained(out, output_loading_info=True, **tiny.loading)
    wrong = [f"{key}: {info[key]}" for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]
    ours, theirs = model.config.to_dict(), tiny.model.config.to_dict()
    for key in sorted((set(ours) | set(theirs)) - WRITER_KEYS):
        if ours.get(key) != theirs.get(key) or type(ours.get(key)) is not type(theirs.get(key)):
            wrong.append(f"config {key}: {ours.get(key)!r}, expected {theirs.get(key)!r}")
    model.save_pretrained(again)
    return wrong


def copy_jobs(models, source, target):
    return [{"do": "copy", "model": source(tiny), "out": target(tiny),
             "max_shard_bytes": tiny.random.choice([3000, 5 * 10**9])} | tiny.layout() for tiny in models]


def add_foreign_key(tiny):
    """What a user put into a config must survive."""
    path = os.path.join(tiny.folder, "config.json")
    with open(path) as file:
        config = json.load(file)
    config["house_key"] = {"nested": [1, 2.5, None, "é"]}
    with open(path, "w") as file:
        json.dump(config, file)
    tiny.model.config.house_key = config["house_key"]


def judge(driver, count, folder):
    models = list(tiny_models(count, folder))
    failures = []
    for tiny in models:
        add_foreign_key(tiny)
    first, again, second = (lambda tiny, kind=kind: f"{tiny.folder}-{kind}" for kind in ("first", "again", "second"))
    answers = run_jobs(driver, folder, copy_jobs(models, lambda tiny: tiny.folder, first))
    loadable = []
    for tiny, answer in zip(models, answers):
        if "error" in answer:
            failures.append(f"{tiny.name}: {answer['error']}")
            continue
        wrong = [difference(stored(tiny.folder), stored(first(tiny)))] + check_loading(tiny, first(tiny), again(tiny))
        failures += [f"{tiny.name}: {each}" for each in wrong if each]
        loadable.append(tiny)
    answers = run_jobs(driver, folder, copy_jobs(loadable, again, second))
    for tiny, answer in zip(loadable, answers):
        wrong = answer.get("error") or difference(stored(first(tiny)), stored(second(tiny)))
        if wrong:
            failures.append(f"{tiny.name}, saved by transformers and copied again: {wrong}")
    return failures, f"{len(models)} models, seeds 0 to {count - 1} of each family, through Echelon twice"


if __name__ == "__main__":
    judge_main(judge)
