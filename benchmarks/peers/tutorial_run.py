"""One training the way a tutorial does it, for ``tutorials.py``: transformers' Trainer and nothing of ours.

Each function below is a condensed version, in our words, of what tutorials of its kind have in common, faults
included; ``docs/from-tutorials.md`` says which and where.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import judge
import torch
from clock import Clock, memory
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

Rows = list[dict[str, Any]]


def trained(model: Any, rows: Rows, job: dict[str, Any], out: Path, collator: Any = None) -> dict[str, Any]:
    """Train and say how long the loop took and how much memory the process ever had."""
    torch.manual_seed(job["seed"])
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"), use_cpu=True, num_train_epochs=job["epochs"], report_to="none",
        per_device_train_batch_size=job["batch_size"] // job["accumulation"],
        gradient_accumulation_steps=job["accumulation"], learning_rate=job["learning_rate"], save_strategy="no",
        disable_tqdm=True, seed=job["seed"], remove_unused_columns=False,
    )  # fmt: skip
    clock = Clock()
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]).train()  # type: ignore[arg-type]
    return {"seconds": clock.ends[-1] - clock.began, "peak": memory("VmHWM")}


def adapted(model: Any, job: dict[str, Any], kind: str) -> Any:
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=job["targets"], task_type=kind))


def review(job: dict[str, Any], train: Rows, held: Rows, out: Path) -> dict[str, Any]:
    """A classifier: every row padded to 512 tokens, and the beginning of a longer one cut off without a word."""
    tokenizer = AutoTokenizer.from_pretrained(job["base"], truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(job["base"], num_labels=2)
    rows = []
    for row in train:
        ids = tokenizer(row["text"], padding="max_length", truncation=True, max_length=512)
        rows.append({key: torch.tensor(ids[key]) for key in ("input_ids", "attention_mask")} | {"labels": row["label"]})
    found = trained(model, rows, job, out)
    texts = [tokenizer(row["text"], truncation=True, max_length=512)["input_ids"] for row in held]
    cut = sum(len(tokenizer(row["text"])["input_ids"]) > 512 for row in [*train, *held])
    return found | {"accuracy": judge.right(model, texts, [row["label"] for row in held]), "cut": cut, "said": 0}


def label_word(job: dict[str, Any], train: Rows, held: Rows, out: Path) -> dict[str, Any]:
    """A causal model that writes the label: pad = end of sequence, and labels are the ids, padding included."""
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    tokenizer.pad_token = tokenizer.eos_token
    model = adapted(AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32), job, "CAUSAL_LM")
    words = [" negative", " positive"]
    rows = []
    for row in train:
        text = f"Review: {row['text']}\nSentiment:{words[row['label']]}{tokenizer.eos_token}"
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=128)
        rows.append(
            {key: torch.tensor(ids[key]) for key in ("input_ids", "attention_mask")}
            | {"labels": torch.tensor(ids["input_ids"])}
        )
    found = trained(model, rows, job, out)
    prompts = [tokenizer(f"Review: {row['text']}\nSentiment:")["input_ids"] for row in held]
    tokens = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    return found | {"accuracy": judge.right_tokens(model, prompts, tokens, [row["label"] for row in held])}


def reasoning(job: dict[str, Any], train: Rows, held: Rows, out: Path) -> dict[str, Any]:
    """Chains of thought as plain text, or who the model is in the base's template: everything learned, the question
    too; pad = end, which is then learned never."""
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    tokenizer.pad_token = tokenizer.eos_token
    model = adapted(AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32), job, "CAUSAL_LM")

    def asked(row: dict[str, Any]) -> str:
        if job["kind"] == "identity":
            turns = [{"role": "user", "content": row["instruction"]}]
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return f"Answer a medical question. Think first.\n\n### Question:\n{row['Question']}\n\n### Response:\n"

    def answer(row: dict[str, Any]) -> str:
        if job["kind"] == "identity":
            return str(row["output"])
        return f"<think>\n{row['Complex_CoT']}\n</think>\n{row['Response']}"

    texts = [asked(row) + answer(row) + tokenizer.eos_token for row in train]
    rows = [{"input_ids": tokenizer(text, truncation=True, max_length=2048)["input_ids"]} for text in texts]
    found = trained(model, rows, job, out, DataCollatorForLanguageModeling(tokenizer, mlm=False))
    pairs = [
        (tokenizer(asked(row))["input_ids"], tokenizer(answer(row), add_special_tokens=False)["input_ids"])
        for row in held
    ]
    nats, ends = judge.surprise(model, pairs, tokenizer.eos_token_id)
    return found | {"nats": nats, "end": ends}


def translation(job: dict[str, Any], train: Rows, held: Rows, out: Path) -> dict[str, Any]:
    """Sources and targets padded to 128 tokens, and the padding of targets learned."""
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    model = AutoModelForSeq2SeqLM.from_pretrained(job["base"], dtype=torch.float32)
    rows = []
    for row in train:
        one = tokenizer(row["source"], padding="max_length", truncation=True, max_length=128)
        two = tokenizer(text_target=row["target"], padding="max_length", truncation=True, max_length=128)
        rows.append(
            {key: torch.tensor(one[key]) for key in ("input_ids", "attention_mask")}
            | {"labels": torch.tensor(two["input_ids"])}
        )
    found = trained(model, rows, job, out)
    sources = [tokenizer(row["source"])["input_ids"] for row in held]
    score = judge.bleu(
        model, sources, [row["target"] for row in held], lambda ids: tokenizer.decode(ids, skip_special_tokens=True)
    )
    return found | {"bleu": score}


KINDS = {"review": review, "label_word": label_word, "reasoning": reasoning, "identity": reasoning,
         "translation": translation}


def main(job: dict[str, Any], out: Path) -> None:
    files = [Path(job[side]).read_text(encoding="utf-8") for side in ("train", "held_out")]
    train, held = ([json.loads(line) for line in text.split("\n") if line] for text in files)
    (out / "measured.json").write_text(json.dumps(KINDS[job["kind"]](job, train, held, out)), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
