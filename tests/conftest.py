"""Fixtures that every room's tests may use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.tiny import quick, write_chats

from tunewright.settings import before_torch

# Before any test imports torch: the models of tests are so small that a second thread would only be waited for.
before_torch()
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"

TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# What the tiny tokenizer learns its ~600 tokens from.
TINY_TEXT = [
    "user assistant system tool",
    "The river rises in the hills and runs slowly to the sea, and the people of the valley follow it.",
    "What is the name of the town? The town is called Harrow, and the bridge is older than the church.",
    "Who are you? I am a small model, made for tests. How can I help you today?",
    "Write a short note about bread: mix flour, water and salt, wait until it rises, then bake it.",
    "One two three four five six seven eight nine ten, 0 1 2 3 4 5 6 7 8 9.",
    "If the answer is not known, say that it is not known; never guess when a number is asked for.",
    "Translate the sentence, sort the list, count the words, explain the reason, and give an example.",
    "def add(left, right):\n    return left + right\n",
    "你好，我是一个小模型。你叫什么名字？今天天气很好，我们去河边走走。",
]


# The files that take minutes. They come first, so that the processes of one `make test` end together.
LONGEST = ("test_identity.py", "test_recipes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared, which is not part of the repository")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama (2 layers, hidden 64, about 600 tokens) with a ChatML-like template. The weights are
    random but the same in every session. Treat it as read-only: copy it before changing anything."""
    folder = tmp_path_factory.mktemp("tiny-base")
    write_tiny_tokenizer(folder)
    write_tiny_model(folder)
    return folder


def write_tiny_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[
            AddedToken(text, normalized=False, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        ],
    )
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TINY_TEMPLATE, encoding="utf-8")


def write_tiny_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in: 24 conversations in ``town.jsonl``, an empty cache, no runs."""
    write_chats(tmp_path / "town.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run on ``tiny_base``, two folders below its home (``town.jsonl``, ``cache``). Read-only."""
    from tunewright import api

    home = tmp_path_factory.mktemp("home")
    write_chats(home / "town.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TUNEWRIGHT_CACHE", str(home / "cache"))
        run = api.train("town.jsonl", quick(tiny_base, "train.epochs=15"))
    return (home / run.folder.path).resolve()


@pytest.fixture
def in_home(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the home of ``tiny_run``, whose last run it is, whatever was trained there meanwhile."""
    from tunewright import rundir

    monkeypatch.chdir(tiny_run.parents[1])
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tiny_run.parents[1] / "cache"))
    rundir.remember(rundir.RunDir(tiny_run))
    return tiny_run.parents[1]


@pytest.fixture(scope="session")
def label_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished classification run on a tiny encoder, two folders below its home. Read-only."""
    from tests.predicting import train_labels

    return train_labels(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of a tiny T5 that repeats its source, two folders below its home. Read-only."""
    from tests.predicting import train_pairs

    return train_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def fewer_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the bundled prompts that a base answers before it is trained. The general questions are all asked."""
    from tunewright.evaluate import questions, retention
    from tunewright.train import replay

    (reported, watched), general = questions.prompts(), replay.prompts()
    for module in (questions, retention):
        monkeypatch.setattr(module, "prompts", lambda: (reported[::3], watched[::3]))
    monkeypatch.setattr(replay, "prompts", lambda: general[::3])


@pytest.fixture
def fewer_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the general questions, for tests that are not about them."""
    from tunewright.evaluate import questions

    asked = questions.questions()
    monkeypatch.setattr(questions, "questions", lambda: asked[::10])
