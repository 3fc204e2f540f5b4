"""Every key of a recipe, declared once.

This declaration is the type check, the text of ``tunewright recipe explain``, the page ``docs/recipe.md`` and the
default at the same time. ``auto`` means that ``train/choose.py`` picks a value from the data, the base and the
machine, says why, and writes it into the run's ``recipe.yaml``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Auto = Literal["auto"]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[list[str], BeforeValidator(_listed)]
Names = Annotated[list[str], BeforeValidator(_listed)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)


class Data(Section):
    train: Paths = Field(
        default=[], description="File, files or folder with the training rows.", examples=["data.jsonl"]
    )
    validation: Paths = Field(
        default=[],
        description="File, files or folder with the held-out rows. Without it they are taken from `data.train`.",
        examples=["held_out.jsonl"],
    )
    held_out: Auto | Annotated[int, Field(ge=2)] | Fraction = Field(
        default="auto",
        description="How many rows (a whole number) or which share (below 1) of `data.train` is held out.",
        examples=["0.1"],
    )
    format: Literal[
        "auto", "messages", "sharegpt", "instruction", "prompt_completion", "reasoning", "columns", "template",
        "labelled", "parallel", "text",
    ] = Field(
        default="auto",
        description="How rows are read. `auto` looks at the columns and says what it saw.",
        examples=["sharegpt"],
    )
    columns: dict[
        Literal["question", "answer", "system", "thinking", "text", "pair", "label", "source", "target"], str
    ] = Field(
        default={},
        description="Names of the columns that are read: `question` and `answer` (and `system`, `thinking`) of a "
        "conversation; `text` and `label` (and `pair`, a second text) of a labelled row; `source` and `target` of a "
        "translation; `text` of a document.",
        examples=["{question: Q, answer: A}"],
    )
    target: Paths = Field(
        default=[],
        description="For parallel text in two files: the files whose line N belongs to line N of `data.train`.",
        examples=["train.fr"],
    )
    validation_target: Paths = Field(
        default=[],
        description="The same beside `data.validation`.",
        examples=["test.fr"],
    )
    prompt: str | None = Field(
        default=None,
        description="The user's turn, written with `{column}` fields, for flat rows.",
        examples=["Question: {Q}"],
    )
    answer: str | None = Field(
        default=None,
        description="The assistant's turn, written with `{column}` fields, for flat rows.",
        examples=["{A}"],
    )
    system: str | None = Field(
        default=None,
        description="System message for rows that have none. Nothing is added unless you write it here.",
        examples=["You are brief."],
    )
    variables: dict[str, str] = Field(
        default={},
        description="Values for `{{name}}` placeholders in the data, the checks and the system message.",
        examples=["{name: Wren, author: Tunewright}"],
    )
    limit: Positive | None = Field(
        default=None, description="Take only the first rows, as many as this.", examples=["1500"]
    )
    max_length: Auto | Annotated[int, Field(ge=8)] = Field(
        default="auto", description="Longest row in tokens. `auto` is what the base can hold.", examples=["1024"]
    )
    too_long: Literal["stop", "drop", "truncate"] = Field(
        default="stop",
        description="What happens to a row over `data.max_length`: stop the run, leave it out, or cut its context. "
        "An answer's end is never cut.",
        examples=["truncate"],
    )
    truncation_side: Literal["left", "right"] = Field(
        default="right",
        description="From which end a text is cut with `data.too_long: truncate` (classify and seq2seq; a conversation "
        "always loses its oldest turns).",
        examples=["left"],
    )
    learn_thinking: bool = Field(
        default=True,
        description="Whether the chain of thought is learned with the answer, or only the answer behind it.",
        examples=["false"],
    )
    chat_template: str | None = Field(
        default=None,
        description="A chat template in place of the base's own: a name (`plain`, `chatml`) or a `.jinja` file. A base "
        "without any gets `plain`, which is said. A label's word is asked for in plain text unless this is `default` "
        "or another name.",
        examples=["chatml"],
    )
    allow_few: bool = Field(
        default=False, description="Train although there are fewer than 10 rows.", examples=["true"]
    )
    allow_unlearned: bool = Field(
        default=False,
        description="Leave out rows in which nothing would be learned, instead of stopping.",
        examples=["true"],
    )


class Train(Section):
    method: Literal["lora", "full", "freeze"] = Field(
        default="lora", description="What is trained: an adapter, every weight, or the last layers.", examples=["full"]
    )
    epochs: Auto | Annotated[float, Field(gt=0, le=1000)] = Field(
        default="auto", description="How often each row is seen.", examples=["3"]
    )
    max_steps: Positive | None = Field(
        default=None, description="Stop after this many steps, whatever the epochs.", examples=["100"]
    )
    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = Field(
        default="auto", description="Peak learning rate.", examples=["2e-4"]
    )
    batch_size: Auto | Positive = Field(
        default="auto",
        description="Examples to one step. How they are cut into micro-batches never changes a result.",
        examples=["16"],
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="How the learning rate falls after the warm-up.", examples=["linear"]
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of the steps in which the learning rate rises.", examples=["0.05"]
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="AdamW's weight decay.", examples=["0.01"]
    )
    dropout: Auto | Annotated[float, Field(ge=0, lt=1)] = Field(
        default="auto",
        description="How much a base that was made with dropout drops while it is trained. `auto` is 0.1 under a new "
        "head for labels, which few rows overfit, and 0 otherwise. Above 0, results depend on how steps are cut.",
        examples=["0"],
    )
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="Gradients are scaled down to this norm; 0 leaves them as they are.", examples=["0.5"]
    )
    precision: Auto | Literal["bf16", "fp32"] = Field(
        default="auto",
        description="Arithmetic of the frozen weights. Trained weights are always kept in fp32.",
        examples=["fp32"],
    )
    token_budget: Auto | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Tokens to one micro-batch. Changes memory and speed, not the result.",
        examples=["4096"],
    )
    fit: Literal["stop", "auto"] = Field(
        default="stop",
        description="What happens if a training does not fit into memory, as foreseen or as rehearsed before step 1: "
        "stop and name the smallest change with which it would, or make that change and write it down.",
        examples=["auto"],
    )
    keep: Auto | Literal["last", "best"] = Field(
        default="auto",
        description="Which weights a run ends with: those of its last step, or of the epoch that did best on rows held "
        "out for this choice alone: most rows right, or for answers the lowest sum of loss and divergence from the "
        "base. `auto` is `best` for classification, `last` otherwise.",
        examples=["last"],
    )
    patience: Positive = Field(
        default=2,
        description="With `train.keep: best`, stop after this many epochs in a row that were worse.",
        examples=["1"],
    )
    report_to: Names = Field(
        default=[],
        description="Trackers besides the run folder: `tensorboard`, `wandb`, `mlflow`, `trackio`.",
        examples=["tensorboard"],
    )

    @field_validator("report_to")
    @classmethod
    def _known_tracker(cls, value: list[str]) -> list[str]:
        known = {"tensorboard", "wandb", "mlflow", "trackio"}
        for name in value:
            if name not in known:
                raise ValueError(f"{name!r} is no tracker; known are {', '.join(sorted(known))}")
        return value


class Lora(Section):
    rank: Positive = Field(default=16, description="Rank of the adapter's matrices.", examples=["8"])
    alpha: Annotated[float, Field(gt=0)] = Field(
        default=32, description="The adapter's output is multiplied by alpha divided by rank.", examples=["16"]
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Dropout before the adapter. Above 0, results depend on how steps are cut.",
        examples=["0.05"],
    )
    targets: Names = Field(
        default=["all-linear"],
        description="Layers that get an adapter: names such as `q_proj`, or `all-linear`.",
        examples=["[q_proj, v_proj]"],
    )
    settle: Auto | bool = Field(
        default="auto",
        description="After training, make the adapter smaller to where the loss of training rows and the divergence "
        "from the base are lowest together. `auto` does it where general prompts are mixed in (`retain`).",
        examples=["false"],
    )


class Freeze(Section):
    layers: Positive = Field(default=2, description="How many of the last layers are trained.", examples=["4"])


class Classify(Section):
    head: Auto | Literal["linear", "label_token"] = Field(
        default="auto",
        description="A new layer on top of the base that gives a number to each label, or the base's own output at "
        "the place where it would write a label's word. `auto` is `label_token` for a base that chats, else `linear`.",
        examples=["linear"],
    )
    labels: Names = Field(
        default=[],
        description="The labels in the order of their numbers. Without it they are those of the training rows, sorted.",
        examples=["[negative, positive]"],
    )
    names: dict[str, str] = Field(
        default={},
        description="Better names for labels that the data writes as numbers or codes.",
        examples=['{"0": negative, "1": positive}'],
    )
    multi_label: bool = Field(
        default=False,
        description="A row may have several labels or none (a list, or names with commas between).",
        examples=["true"],
    )
    prompt: str | None = Field(
        default=None,
        description="For `label_token`: what the model is asked, with `{text}` (and `{pair}`, `{labels}`) filled in.",
        examples=["Review: {text}\\nIs it good or bad?"],
    )
    words: dict[str, str] = Field(
        default={},
        description="For `label_token`: the word that is answered for a label, where it is not the label itself.",
        examples=["{negative: bad, positive: good}"],
    )


class Seq2seq(Section):
    prefix: str = Field(
        default="",
        description="Text that stands before each source, such as T5's `translate English to French: `.",
        examples=["summarize: "],
    )
    source_language: str | None = Field(
        default=None, description="Language code of the sources, for bases that want one.", examples=["en_XX"]
    )
    target_language: str | None = Field(
        default=None, description="Language code of the targets, for bases that want one.", examples=["fr_XX"]
    )
    beams: Positive = Field(default=4, description="Beams of the search when outputs are generated.", examples=["1"])


class Save(Section):
    every: Auto | Positive = Field(default="auto", description="Steps between two checkpoints.", examples=["50"])
    keep: Positive = Field(default=2, description="Checkpoints kept; older ones are deleted.", examples=["1"])


class Evaluate(Section):
    rows: Auto | Annotated[int, Field(ge=0)] = Field(
        default="auto",
        description="For how many held-out rows answers or outputs are generated, before and after.",
        examples=["64"],
    )
    max_new_tokens: Auto | Positive = Field(
        default="auto",
        description="Longest generated answer. `auto` is what the longest held-out answer needs.",
        examples=["128"],
    )


class Check(Section):
    """One of the user's own checks, written as ``number`` or as ``contains: text``."""

    kind: Literal["contains", "regex", "equals", "json", "number"]
    value: str | None = None

    @model_validator(mode="after")
    def _sound(self) -> Check:
        if self.kind in ("contains", "regex") and not self.value:
            raise ValueError(f"the check `{self.kind}` needs a text: `{self.kind}: …`")
        if self.kind == "regex":
            try:
                re.compile(self.value or "")
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"`{self.value}` is no regular expression: {error}") from None
        return self

    @property
    def name(self) -> str:
        return self.kind if self.value is None else f"{self.kind}: {self.value}"


def _check(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and len(value) == 1 and "kind" not in value:
        [(kind, text)] = value.items()
        return {"kind": kind, "value": text}
    return value


Checks = Annotated[list[Annotated[Check, BeforeValidator(_check)]], BeforeValidator(_listed)]


class Recipe(Section):
    task: Auto | Literal["chat", "classify", "seq2seq", "pretrain"] = Field(
        default="auto",
        description="What the model learns: to answer (`chat`), to choose a label (`classify`), to write a text from "
        "another (`seq2seq`), or to go on with a text (`pretrain`). `auto` looks at the rows and says what it saw.",
        examples=["classify"],
    )
    base: str = Field(
        default="auto",
        description="The model one starts from: a name from `tunewright models`, a hub id, `modelscope:ID`, "
        "a folder or a `.gguf` file. `auto` is the embedded base for the task.",
        examples=["HuggingFaceTB/SmolLM2-360M-Instruct"],
    )
    name: str | None = Field(
        default=None, description="Name of the run; the data file's name by default.", examples=["my-run"]
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Decides held-out rows, order and first weights. Same seed, same machine, same result.",
        examples=["1"],
    )
    data: Data = Field(default=Data(), description="Where the rows come from and how they are read.")
    train: Train = Field(default=Train(), description="How the weights change.")
    lora: Lora = Field(default=Lora(), description="The adapter (only with `train.method: lora`).")
    freeze: Freeze = Field(default=Freeze(), description="Partial training (only with `train.method: freeze`).")
    classify: Classify = Field(default=Classify(), description="Labels (only with `task: classify`).")
    seq2seq: Seq2seq = Field(default=Seq2seq(), description="Text from text (only with `task: seq2seq`).")
    retain: Auto | Literal["off"] | Annotated[float, Field(ge=0, le=4)] = Field(
        default="auto",
        description="Protects what the base can do: general prompts, answered by the base itself before training, are "
        "mixed into the steps and hold the model to the base. A number is the strength: how many of them to each "
        "training row. `auto` takes as many as cost at most a fifth of the training's time; `off` takes none.",
        examples=["0.5"],
    )
    checks: Checks = Field(
        default=[],
        description="What a good answer must satisfy: `contains`, `regex`, `equals`, `json`, `number`. A check counts "
        "the rows whose reference answer satisfies it.",
        examples=["[number, {contains: Wren}]"],
    )
    evaluate: Evaluate = Field(default=Evaluate(), description="What is measured before and after.")
    save: Save = Field(default=Save(), description="Checkpoints.")


# Keys of older recipes and run folders, by what they are called now; both are read.
FORMERLY: dict[str, str] = {"retain.share": "retain"}

# Sections that only one method reads; setting a key in another's section is an error.
ONLY_FOR_METHOD: dict[str, str] = {"lora": "lora", "freeze": "freeze"}

# Sections and keys that only some tasks read; the same holds for them.
ONLY_FOR_TASK: dict[str, tuple[str, ...]] = {
    "classify": ("classify",),
    "seq2seq": ("seq2seq",),
    "retain": ("chat",),
    "lora.settle": ("chat",),
    "checks": ("chat", "seq2seq"),
    "evaluate": ("chat", "seq2seq"),
    "data.target": ("seq2seq",),
    "data.validation_target": ("seq2seq",),
    "data.truncation_side": ("classify", "seq2seq"),
    "data.learn_thinking": ("chat",),
    "data.chat_template": ("chat", "classify"),
    "data.system": ("chat", "classify"),
}
