"""Echelon's outputs, gradients and greedy generation against transformers' on random tiny models.

    forward_judge.py model_driver [--models=30]

Outputs within 2e-5 absolute, gradients within 1e-4 relative of each tensor's largest, generated ids equal.
"""

import os

import torch
from safetensors.torch import load_file, save_file

from random_models import judge_main, run_jobs, tiny_models


def expected_outputs(tiny, inputs):
    with torch.no_grad():
        output = tiny.model(**inputs, output_hidden_states=True)
    expected = {"last_hidden_state": output.hidden_states[-1]}
    if not tiny.bare:
        expected["logits"] = output.logits
    if getattr(output, "pooler_output", None) is not None:
        expected["pooler_output"] = output.pooler_output
    return expected


def expected_gradients(tiny, inputs, labels):
    tiny.model.zero_grad()
    tiny.model(**inputs, labels=labels).loss.backward()
    return {"grad." + name: p.grad for name, p in tiny.model.named_parameters() if p.grad is not None}


def random_labels(tiny, inputs):
    labels = torch.randint(tiny.config.vocab_size, inputs["input_ids"].shape)
    labels[torch.rand(labels.shape) < 0.3] = -100
    labels[0, -1] = 1  # at least one target
    return labels


def forward_job(tiny, folder):
    """A job and what it must give."""
    inputs = tiny.inputs()
    expected = expected_outputs(tiny, inputs)
    length = inputs["input_ids"].shape[1]
    gradients = not tiny.bare and length > 1
    stem = os.path.join(folder, tiny.name.replace(" ", "-"))
    stored = dict(inputs)
    if gradients:
        stored["labels"] = random_labels(tiny, inputs)
        expected |= expected_gradients(tiny, inputs, stored["labels"])
    save_file(stored, stem + ".in")
    job = {"do": "forward", "model": tiny.folder, "input": stem + ".in", "output": stem + ".out"}
    return job | {"gradients": gradients} | tiny.layout(), expected


def compare(job, expected):
    """What is wrong, and the largest errors (outputs absolute, gradients relative)."""
    given = load_file(job["output"])
    wrong, worst = [], [0.0, 0.0]
    if set(given) != set(expected):
        wrong.append(f"names differ: {sorted(set(given) ^ set(expected))}")
    for name in set(given) & set(expected):
        if given[name].shape != expected[name].shape or given[name].dtype != torch.float32:
            wrong.append(f"{name}: {given[name].shape} {given[name].dtype}, expected {expected[name].shape}")
            continue
        error = (given[name] - expected[name]).abs().max().item()
        is_gradient = name.startswith("grad.")
        if is_gradient:
            error /= max(expected[name].abs().max().item(), 1e-3)
        if not error <= (1e-4 if is_gradient else 2e-5):
            wrong.append(f"{name} is off by {error:.3g}")
        worst[is_gradient] = max(worst[is_gradient], error)
    return wrong, worst


def generate_job(tiny):
    """One prompt, or up to three of different lengths together; transformers has each alone."""
    lengths = [tiny.random.randint(1, 6) for _ in range(tiny.random.randint(1, 3))]
    prompts = [torch.randint(tiny.config.vocab_size, (1, length)) for length in lengths]
    count = tiny.random.randint(1, tiny.config.max_position_embeddings - max(lengths))
    with torch.no_grad():
        ids = [tiny.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count,
                                   pad_token_id=0)[0].tolist() for prompt in prompts]
    job = {"do": "generate", "model": tiny.folder, "prompts": [prompt[0].tolist() for prompt in prompts], "max_new_tokens": count}
    return job | tiny.layout(), ids


def judge(driver, count, folder):
    jobs, checks, failures, worst = [], [], [], [0.0, 0.0]
    for tiny in tiny_models(count, folder):
        job, expected = forward_job(tiny, folder)
        jobs.append(job)
        checks.append((tiny.name, expected))
        if tiny.family != "bert" and not tiny.bare:
            job, ids = generate_job(tiny)
            jobs.append(job)
            checks.append((tiny.name, ids))
    for job, (name, expected), answer in zip(jobs, checks, run_jobs(driver, folder, jobs)):
        place = f"{name} dp={job.get('dp', 1)} tp={job.get('tp', 1)} zero={job['zero']} {job['do']}"
        if "error" in answer:
            failures.append(f"{place}: {answer['error']}")
        elif job["do"] == "generate":
            if answer["ids"] != expected:
                failures.append(f"{place}: {answer['ids']}, expected {expected}")
        else:
            wrong, errors = compare(job, expected)
            failures += [f"{place}: {each}" for each in wrong]
            worst = [max(pair) for pair in zip(worst, errors)]
    return failures, (f"{len(jobs)} jobs, seeds 0 to {count - 1} of each family: outputs off by up to {worst[0]:.2g}, "
                      f"gradients by {worst[1]:.2g}")


if __name__ == "__main__":
    judge_main(judge)
