"""Tokenizers: trains one, or takes that of a Hugging Face folder; writes a folder that transformers loads."""

import json
import os
import re
import shutil
from dataclasses import dataclass, field

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from alphabet import alphabet, continues_a_word
from failure import Failure, storage

TRAIN = re.compile(r"train:(bpe|wordpiece):([0-9]+)\Z")
SMALLEST = {"bpe": 258, "wordpiece": 128}  # the alphabet and the special tokens
LARGEST = 1 << 20
CONFIG_LIMIT = 64 << 20
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass
class Vocabulary:
    """A tokenizer and what models need to know of it."""

    tokenizer: Tokenizer
    roles: dict  # "bos" → "<|endoftext|>", …: only those it has
    folder: str = ""  # where it was read from; empty: trained here
    ids: dict = field(init=False)  # "bos" → 0, …

    def __post_init__(self):
        self.ids = {role: self.tokenizer.token_to_id(token) for role, token in self.roles.items()}
        self.ids = {role: id for role, id in self.ids.items() if id is not None}

    @property
    def size(self):
        """One more than the largest id: ids may have gaps."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def special_ids(self):
        added = {id for id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        return sorted(added | set(self.ids.values()))

    @property
    def end_id(self):
        """What stands after each document: the end of text, else the separator; None if there is neither."""
        return self.ids.get("eos", self.ids.get("sep"))


def parse_spec(spec):
    """("bpe" | "wordpiece", size) of `train:…`, or None where `spec` is a folder."""
    if not spec.startswith("train:"):
        return None
    match = TRAIN.match(spec)
    if not match:
        raise Failure("usage", "--tokenizer", f'"{spec}" is neither train:bpe:SIZE nor train:wordpiece:SIZE')
    kind, size = match[1], int(match[2])
    if not SMALLEST[kind] <= size <= LARGEST:
        raise Failure(
            "usage", "--tokenizer", f"a {kind} vocabulary has {SMALLEST[kind]} to {LARGEST} tokens, not {size}"
        )
    return kind, size


def train(kind, size, texts, lowercase=True):
    """A new tokenizer of about `size` tokens. `texts()` gives the training texts, anew on every call."""
    return byte_level_bpe(size, texts) if kind == "bpe" else wordpiece(size, texts, lowercase)


def byte_level_bpe(size, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return Vocabulary(tokenizer, {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"})


def wordpiece(size, texts, lowercase):
    draft = bert_tokenizer({}, lowercase)
    letters = alphabet(texts(), draft.normalizer)
    # Numbered beforehand, as if special, so that every run numbers them alike; only five end up special.
    first = list(BERT.values()) + letters + ["##" + letter for letter in letters if continues_a_word(letter)]
    draft.train_from_iterator(
        texts(), trainers.WordPieceTrainer(vocab_size=max(size, len(first)), special_tokens=first, show_progress=False)
    )
    tokenizer = bert_tokenizer(draft.get_vocab(with_added_tokens=True), lowercase)
    tokenizer.add_special_tokens(list(BERT.values()))
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return Vocabulary(tokenizer, BERT)


def bert_tokenizer(vocab, lowercase):
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def load(folder):
    """The tokenizer of a Hugging Face folder."""
    if not os.path.isdir(folder):
        raise Failure(
            "input",
            folder,
            "no such folder",
            "--tokenizer takes a Hugging Face folder, train:bpe:SIZE or train:wordpiece:SIZE",
        )
    tokenizer = read_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    roles = read_roles(folder)
    for role, token in roles.items():
        if tokenizer.token_to_id(token) is None:
            raise Failure("input", folder, f'{role}_token "{token}" is not in the vocabulary')
    return Vocabulary(tokenizer, roles, folder=folder)


def read_tokenizer(folder):
    has = lambda name: os.path.isfile(os.path.join(folder, name))
    path = lambda name: os.path.join(folder, name)
    try:
        if has("tokenizer.json"):
            return Tokenizer.from_file(path("tokenizer.json"))
        if has("vocab.json") and has("merges.txt"):
            tokenizer = Tokenizer(models.BPE.from_file(path("vocab.json"), path("merges.txt")))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            return tokenizer
        if has("vocab.txt"):
            return read_vocab_txt(folder)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is not an Exception
        raise Failure("input", folder, f"its tokenizer cannot be read ({error})") from error
    raise Failure(
        "input",
        folder,
        "no tokenizer.json, vocab.json with merges.txt, or vocab.txt",
        "convert other kinds with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
    )


def read_vocab_txt(folder):
    config = read_json(os.path.join(folder, "tokenizer_config.json"))
    vocab = models.WordPiece.read_file(os.path.join(folder, "vocab.txt"))
    return bert_tokenizer(vocab, bool(config.get("do_lower_case", True)))


def read_json(path):
    """The JSON object in `path`; {} where there is no such file."""
    if not os.path.isfile(path):
        return {}
    if os.path.getsize(path) > CONFIG_LIMIT:
        raise Failure("input", path, f"larger than {CONFIG_LIMIT >> 20} MiB")
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise Failure("input", path, "bad JSON") from error
    if not isinstance(value, dict):
        raise Failure("input", path, "expected a JSON object")
    return value


def read_roles(folder):
    merged = {
        **read_json(os.path.join(folder, "special_tokens_map.json")),
        **read_json(os.path.join(folder, "tokenizer_config.json")),
    }
    roles = {}
    for role in ROLES:
        token = merged.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            roles[role] = token
    if not roles and os.path.isfile(os.path.join(folder, "vocab.txt")):
        roles = BERT
    return roles


def save(vocabulary, folder):
    """Writes the tokenizer's files to `folder`, in place of what is there; files that were read are copied."""
    fresh, old = f"{folder}.tmp-{os.getpid()}", f"{folder}.old-{os.getpid()}"
    try:
        os.makedirs(fresh)
        write_files(vocabulary, fresh)
        if os.path.lexists(folder):
            os.rename(folder, old)
        os.rename(fresh, folder)
    except OSError as error:
        raise storage(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_files(vocabulary, folder):
    for name in FILES:
        source = os.path.join(vocabulary.folder, name)
        if vocabulary.folder and os.path.isfile(source):
            shutil.copyfile(source, os.path.join(folder, name))
    if not os.path.exists(os.path.join(folder, "tokenizer.json")):
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            file.write(vocabulary.tokenizer.to_str(pretty=True))
    if not vocabulary.folder:
        write_json(os.path.join(folder, "tokenizer_config.json"), config_of(vocabulary))
        write_json(os.path.join(folder, "special_tokens_map.json"), tokens_of(vocabulary))


def tokens_of(vocabulary):
    return {f"{role}_token": token for role, token in vocabulary.roles.items()}


def config_of(vocabulary):
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "padding_side": "right",
        **tokens_of(vocabulary),
    }
    if "cls" in vocabulary.roles:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return config


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
