"""One training by TRL's SFTTrainer, for ``train_speed.py``. Runs in an environment of its own.

Best stock settings for throughput: weights in bf16, rows of like length grouped, loss on the completion only, no
activation recomputed. Rows are never cut (TRL's own default would cut at 1024 tokens), so that both sides learn from
the same tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from clock import Clock, write
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer


def rows(path: str) -> Dataset:
    """The conversations of the file, the last answer as completion."""
    chats = [json.loads(line)["messages"] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return Dataset.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats])


def main(job: dict[str, Any], out: Path) -> None:
    """job: as ``train_speed.py`` writes it.  out: a new folder."""
    settings: dict[str, Any] = {
        "output_dir": str(out / "trainer"),
        "model_init_kwargs": {"dtype": "bfloat16"},
        "use_cpu": True,
        "bf16": True,
        "per_device_train_batch_size": job["batch_size"],
        "num_train_epochs": 1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "train_sampling_strategy": "group_by_length",
        "completion_only_loss": True,
        "max_length": None,
        "packing": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": job["seed"],
    }
    settings |= job["trl"]
    trainer = SFTTrainer(
        model=job["base"],
        args=SFTConfig(**settings),
        train_dataset=rows(job["train"]),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        peft_config=LoraConfig(
            r=job["rank"], lora_alpha=job["alpha"], target_modules=job["targets"], task_type="CAUSAL_LM"
        ),
    )
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.save_model(str(out / "adapter"))
    if trainer.model.get_base_model().is_gradient_checkpointing != settings["gradient_checkpointing"]:
        raise SystemExit("activations were recomputed, or kept, against the settings")
    seen = trainer.train_dataset
    write(
        out / "measured.json",
        clock,
        ((row["input_ids"], [label != -100 for label in row["labels"]]) for row in seen),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
