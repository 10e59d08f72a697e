"""Peak memory of merging, on files and on shards, on a model of 110 MB in several files."""

import os
import subprocess
import time
from pathlib import Path

import peft
import pytest
import torch
import transformers

ECHELON = os.path.join(os.environ["ECHELON_BUILD"], "bin", "echelon")
MB = 1e6


def write_model(folder, layers, width, vocabulary):
    """A base and a LoRA of rank 16 on all of its linears; their paths, the sizes of the base's files, and the largest tensor."""
    config = transformers.LlamaConfig(num_hidden_layers=layers, hidden_size=width, intermediate_size=2 * width, num_attention_heads=4,
                                      vocab_size=vocabulary, max_position_embeddings=32, tie_word_embeddings=False)
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    base, adapter = folder / "base", folder / "adapter"
    model.save_pretrained(base, max_shard_size="20MB")
    largest = max(values.nbytes for values in model.state_dict().values())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    adapted.save_pretrained(adapter)
    return base, adapter, [path.stat().st_size for path in sorted(base.glob("*.safetensors"))], largest


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("large"), 10, 512, 2000)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny"), 1, 16, 50)


def peak_of(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def peak_bytes(*arguments):
    """Of the largest rank of a command, as its process last showed it."""
    marker = f"--seed={time.monotonic_ns()}" if arguments[0] == "generate" else arguments[-1]
    process = subprocess.Popen([ECHELON, *arguments, *([marker] if arguments[0] == "generate" else [])],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/echelon-rank") and marker.encode() in words:
                    peak = max(peak, peak_of(entry.name))
            except OSError:
                pass  # it has ended
        time.sleep(0.002)
    assert process.returncode == 0, process.stderr.read()
    return peak


@pytest.mark.parametrize("ranks", [1, 2])
def test_merging_files_takes_less_than_a_ranks_files_and_two_tensors(large, tiny, tmp_path, ranks):
    def merge(model, name):
        return peak_bytes("merge", f"--model={model[0]}", f"--adapter={model[1]}", f"--ranks={ranks}", f"--out={tmp_path}/{name}")

    base, adapter, files, largest = large
    share = max(sum(files[rank::ranks]) for rank in range(ranks))
    above = merge(large, "large") - merge(tiny, "tiny")
    print(f"\n{ranks} ranks: {above / MB:.1f} MB above idle; a rank's files {share / MB:.1f} MB, two tensors {2 * largest / MB:.1f} MB")
    assert above <= share + 2 * largest
    record = (tmp_path / "large" / "merge_record.safetensors").stat().st_size
    print(f"its record: {100 * record / sum(files):.1f} % of the base")
    assert record <= 0.15 * sum(files)


@pytest.mark.parametrize("ranks", [1, 2])
def test_merging_on_shards_takes_less_than_two_tensors_more(large, ranks):
    base, adapter, _, largest = large
    generate = ("generate", f"--model={base}", f"--adapter={adapter}", f"--ranks={ranks}", "--prompt_ids=1,2", "--max_new_tokens=2")
    above = peak_bytes(*generate, "--merge_adapters") - peak_bytes(*generate)
    print(f"\n{ranks} ranks: merging takes {above / MB:.1f} MB more than not merging; two tensors are {2 * largest / MB:.1f} MB")
    assert above <= 2 * largest
