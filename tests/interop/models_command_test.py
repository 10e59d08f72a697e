"""`echelon forward`, `generate` and `export` as people type them, against transformers."""

import json
import os
import shutil
import subprocess

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from random_models import randomise

ECHELON = os.path.join(os.environ["ECHELON_BUILD"], "bin", "echelon")
WORDS = "in the beginning god created heaven and earth light was good".split()


class Shared:
    """A GPT-2 with four heads and a tokenizer, made once."""

    def __init__(self, folder):
        config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=20, vocab_size=len(WORDS) + 1, n_positions=16,
                                         bos_token_id=None, eos_token_id=None, attn_implementation="eager")
        torch.manual_seed(1)
        self.model = transformers.GPT2LMHeadModel(config).eval()
        randomise(self.model)
        self.folder = str(folder / "model")
        self.model.save_pretrained(self.folder)
        tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(os.path.join(self.folder, "tokenizer.json"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("shared"))


def echelon(*arguments):
    return subprocess.run([ECHELON, *arguments], capture_output=True, text=True, timeout=100)


def ok(*arguments):
    done = echelon(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(code, sentence, *arguments):
    done = echelon(*arguments)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("echelon: ") and sentence in last, done.stderr


def write_inputs(path, **changes):
    inputs = {"input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])} | changes
    save_file(inputs, path)
    return inputs


@pytest.mark.parametrize("layout", [[], ["--ranks=2"], ["--ranks=2", "mesh.tp=2"], ["--ranks=4", "mesh.tp=2"]])
def test_any_mesh_gives_the_outputs_and_gradients_of_transformers(shared, tmp_path, layout):
    inputs = write_inputs(tmp_path / "in", labels=torch.tensor([[1, 2, -100, 4], [5, 6, 7, 8]]))
    ok("forward", f"--model={shared.folder}", f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--gradients", *layout)
    given = load_file(tmp_path / "out")
    shared.model.zero_grad()
    expected = shared.model(**inputs)
    expected.loss.backward()
    assert (given["logits"] - expected.logits).abs().max() < 2e-5
    for name, parameter in shared.model.named_parameters():
        assert torch.allclose(given[f"grad.{name}"], parameter.grad, rtol=1e-4, atol=1e-6), name


def test_bfloat16_is_near(shared, tmp_path):
    inputs = write_inputs(tmp_path / "in")
    ok("forward", f"--model={shared.folder}", f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--precision=BF16")
    logits = load_file(tmp_path / "out")["logits"]
    assert logits.dtype == torch.float32
    assert (logits - shared.model(**inputs).logits).abs().max() < 0.3


def test_greedy_text_is_that_of_transformers(shared):
    prompt = torch.tensor([[1, 2, 3]])
    expected = shared.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=8,
                                     pad_token_id=0)[0].tolist()
    given = ok("generate", f"--model={shared.folder}", "--prompt_ids=1,2,3", "--max_new_tokens=8")
    assert [int(id) for id in given.split(",")] == expected
    text = ok("generate", f"--model={shared.folder}", "--prompt=in the beginning", "--max_new_tokens=8")
    assert text.split() == [["[UNK]", *WORDS][id] for id in expected]


@pytest.mark.parametrize("layout", [[], ["--ranks=2"]])
def test_prompts_of_a_file_go_on_as_each_would_alone(shared, tmp_path, layout):
    texts = ["in the beginning", "light", "god created heaven and earth", "light"]
    (tmp_path / "prompts").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    common = ["generate", f"--model={shared.folder}", "--max_new_tokens=6", "--temperature=1.5"]
    lines = ok(*common, f"--prompts={tmp_path}/prompts", "--seed=7", *layout).splitlines()
    alone = [ok(*common, f"--prompt={text}", f"--seed={7 + i}").rstrip("\n") for i, text in enumerate(texts)]
    assert [json.loads(line) for line in lines] == [{"prompt": p, "text": t} for p, t in zip(texts, alone)]


def test_a_file_of_prompts_is_checked(shared, tmp_path):
    path = tmp_path / "prompts"
    run = ["generate", f"--model={shared.folder}", f"--prompts={path}"]
    for text, sentence in {"": "holds no prompt", "light\n": f"{path}:1", '{"prompt": "light"}\n{"text": "a"}\n': f"{path}:2",
                           '{"prompt": ""}\n': "is empty"}.items():
        path.write_text(text)
        refused(4, sentence, *run)
    refused(2, "give one of --prompt, --prompt_ids and --prompts", *run, "--prompt=light")


def test_draws_follow_the_seed(shared):
    def drawn(seed, *more):
        return ok("generate", f"--model={shared.folder}", "--prompt_ids=1", "--max_new_tokens=12", "--temperature=1.5",
                  f"--seed={seed}", *more)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in (1, 2, 3)}) > 1
    assert drawn(1, "--ranks=2") == drawn(1)


def test_generation_stops_at_the_end_of_text(shared, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(shared.folder, folder)
    whole = ok("generate", f"--model={shared.folder}", "--prompt_ids=1,2,3", "--max_new_tokens=8").strip().split(",")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [int(whole[3])]}))
    assert ok("generate", f"--model={folder}", "--prompt_ids=1,2,3", "--max_new_tokens=8").strip().split(",") == whole[:4]


def test_export_of_a_folder_is_the_same_model(shared, tmp_path):
    ok("export", shared.folder, f"--out={tmp_path}/half", "--dtype=bfloat16", "--max_shard_size=2KB")
    loaded, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "half", output_loading_info=True, dtype="auto")
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, values in loaded.state_dict().items():
        assert torch.equal(values, shared.model.state_dict()[name].bfloat16()), name
    assert (tmp_path / "half" / "tokenizer.json").read_bytes() == open(f"{shared.folder}/tokenizer.json", "rb").read()


def test_bad_input_is_one_sentence_and_its_code(shared, tmp_path):
    run = ["forward", f"--model={shared.folder}", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    write_inputs(tmp_path / "in", input_ids=torch.tensor([[99]]))
    refused(4, "input_ids: out of range: got 99", *run)
    refused(4, "input_ids: out of range: got 99", *run, "--ranks=2")
    write_inputs(tmp_path / "in", pixel_values=torch.zeros(2, 4))
    refused(4, "pixel_values: no input of this model", *run)
    write_inputs(tmp_path / "in")
    refused(4, "\"labels\" is missing", *run, "--gradients")
    refused(3, "tensor parallel size 3 does not divide 4 attention heads", *run, "--ranks=3", "mesh.tp=3")
    refused(4, "no such folder", "forward", "--model=nowhere", f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_folder_is_one_sentence_and_its_code(shared, tmp_path):
    def damaged(name, change):
        folder = tmp_path / name
        shutil.copytree(shared.folder, folder)
        change(folder)
        return ["generate", f"--model={folder}", "--prompt_ids=1"]

    def set_config(**keys):
        def change(folder):
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | keys))
        return change

    def cut(folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])

    refused(4, "unknown family \"gpt3\", expected one of bert, gpt2, llama", *damaged("family", set_config(model_type="gpt3")))
    refused(4, "n_embd: out of range: got 2147483648", *damaged("size", set_config(n_embd=2**31)))
    refused(4, "has the wrong shape", *damaged("shape", set_config(vocab_size=13)))
    refused(4, "tensors are missing", *damaged("layers", set_config(n_layer=3)))
    refused(4, "model.safetensors", *damaged("cut", cut))
