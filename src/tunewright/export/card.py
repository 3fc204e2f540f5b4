"""The model card: what a stranger has to know of a run before using it, as a README.md in Hugging Face's form.

It reads the run's own files and holds no path of this machine: a card is made to be shown to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tunewright import __version__, rundir
from tunewright.evaluate import kept, learned, names, table
from tunewright.export.usage import Use, usage
from tunewright.model.catalog import Entry, catalog
from tunewright.report import values
from tunewright.rundir import RunDir
from tunewright.text import _

FILE = "README.md"
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "Llama 3.2 Community": "llama3.2"}
PIPELINES = {"answers": "text-generation", "likelihood": "text-generation", "labels": "text-classification",
             "outputs": "text2text-generation"}  # fmt: skip
LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "llama.cpp", "ollama": "llama.cpp"}
KEYS = ("train.method", "lora.rank", "lora.alpha", "lora.targets", "freeze.layers", "train.epochs", "train.max_steps",
        "train.learning_rate", "train.batch_size", "train.schedule", "train.warmup", "train.weight_decay",
        "train.precision", "train.keep", "retain", "seed")  # fmt: skip


def write(run: RunDir, use: Use) -> str:
    """The text. use: the form that it goes with, and what is needed to use it."""
    manifest, evaluation = run.manifest(), run.read(rundir.EVALUATION)
    recipe: dict[str, Any] = manifest["recipe"]
    name = use.name
    entry = catalog().get(manifest["base"]["name"].lower())
    with run.reading(rundir.MANIFEST):
        front, trained = _front(use, manifest, entry), list(_training(recipe, manifest))
    with run.reading(rundir.EVALUATION):
        what = _what(use, manifest, evaluation)
        measured, limits = list(_measured(evaluation)), list(_limits(evaluation))
    parts = [
        "---\n" + front + "---\n",
        f"# {name}\n",
        what,
        _("## How to use it") + "\n",
        usage(use),
        _("## Before and after") + "\n",
        *measured,
        _("## Data") + "\n",
        *_data(run, manifest),
        _("## Training") + "\n",
        *trained,
        _("## Limits") + "\n",
        *limits,
        _("Made with Tunewright {version}; the run's recipe gives the same run again.", version=__version__),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _front(use: Use, manifest: dict[str, Any], entry: Entry | None) -> str:
    """YAML that a hub reads."""
    front: dict[str, Any] = {"base_model": use.base}
    if use.form in ("adapter", "gguf", "ollama", "merged"):
        front["base_model_relation"] = {"adapter": "adapter", "merged": "finetune"}.get(use.form, "quantized")
    if entry is not None:
        known = LICENCES.get(entry.licence)
        front |= {"license": known} if known else {"license": "other", "license_name": entry.licence}
        if codes := [language for language in entry.languages if len(language) == 2]:
            front["language"] = codes
    if library := LIBRARIES.get(use.form):
        front["library_name"] = library
    front["pipeline_tag"] = PIPELINES[use.gives]
    front["tags"] = ["tunewright", str(manifest["recipe"]["task"]), str(manifest["recipe"]["train.method"])]
    front["tags"] += ["gguf"] if use.form in ("gguf", "ollama") else []
    front["datasets"] = sorted({Path(file["path"]).stem for file in manifest["data"]})
    return yaml.safe_dump(front, allow_unicode=True, sort_keys=False)


def _what(use: Use, manifest: dict[str, Any], evaluation: dict[str, Any]) -> str:
    kinds = {"answers": _("a chat model"), "likelihood": _("a language model"), "labels": _("a classifier"),
             "outputs": _("a model that reads a text and writes another")}  # fmt: skip
    sha = manifest["base"]["sha256"][:12]
    kind = kinds[use.gives]
    lines = [
        _("{name} is {kind}, tuned from {base} (sha256 `{sha}`).", name=use.name, kind=kind, base=use.base, sha=sha)
    ]
    if labels := manifest.get("labels"):
        lines.append(_("Its labels: {labels}.", labels=", ".join(f"`{label}`" for label in labels)))
    if verdict := evaluation.get("verdict"):
        lines.append(f"\n> {verdict}")
    return "\n".join(lines) + "\n"


def _measured(evaluation: dict[str, Any]) -> Iterator[str]:
    rows = [name for name in evaluation.get("difference", {}) if (evaluation["after"].get(name) or {}).get("n")]
    if not rows:
        yield _("Nothing was measured: there were no held-out rows.") + "\n"
        return
    yield _("Base and tuned model on the same {n:,} held-out rows, with the same code; 95 % intervals in brackets.",
            n=evaluation.get("counts", {}).get("rows", 0)) + "\n"  # fmt: skip
    lines = [_("| | before | after | difference | |"), "|---|---|---|---|---|"]
    for name in rows:
        change = evaluation["difference"][name]
        before, after = evaluation["before"].get(name) or {}, evaluation["after"].get(name) or {}
        cells = [
            names.label(name), _with(names.shown(name, before), table.interval(name, before)),
            _with(names.shown(name, after), table.interval(name, after)),
            _with(names.shown_change(name, change), table.interval(name, change, change=True)), table.mark(change)[0],
        ]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    yield "\n".join(lines) + "\n"
    general = evaluation.get("general") or {}
    if general.get("asked"):
        yield _("What it lost and kept of what the base could:") + "\n"
        told = [line for line in (kept.known_line(general), kept.moved_line(general)) if line]
        yield "\n".join(f"- {line}" for line in told) + "\n"


def _data(run: RunDir, manifest: dict[str, Any]) -> Iterator[str]:
    lines = [
        _("- `{name}`: {n:,} rows, sha256 `{sha}`",
          name=Path(file["path"]).name, n=file["rows"], sha=file["sha256"][:12])
        for file in manifest["data"]
    ]  # fmt: skip
    yield "\n".join(lines) + "\n"
    ledger = run.read(rundir.LEDGER)
    with run.reading(rundir.LEDGER):
        yield from _rows(ledger)
    found = rundir.read_lines(run.file(rundir.FINDINGS))
    with run.reading(rundir.FINDINGS):
        lines = [f"- {finding['code']} ({finding['count']:,}): {finding['message']}" for finding in found]
    if lines:
        yield _("The checks of the data found:") + "\n"
        yield "\n".join(lines) + "\n"


def _rows(ledger: dict[str, Any]) -> Iterator[str]:
    """What became of the rows read, in one sentence."""
    if ledger:
        left_out = ", ".join(f"{values.words(reason)} {count:,}" for reason, count in ledger["left_out"].items())
        yield _("{rows_in:,} rows were read and {kept:,} kept ({left_out}): {train:,} to train on, {held_out:,} held "
                "out. {tokens:,} tokens, {learned:,} of them learned.",
                rows_in=ledger["rows_in"], kept=ledger["kept"], left_out=left_out or _("none left out"),
                train=ledger["train"], held_out=ledger["held_out"], tokens=ledger["tokens"],
                learned=ledger["learned_tokens"]) + "\n"  # fmt: skip


def _training(recipe: dict[str, Any], manifest: dict[str, Any]) -> Iterator[str]:
    used = {key: recipe[key] for key in KEYS if recipe.get(key) is not None}
    if recipe["train.method"] != "lora":
        used = {key: value for key, value in used.items() if not key.startswith("lora.")}
    if recipe["train.method"] != "freeze":
        used.pop("freeze.layers", None)
    lines = [_("| key | value |"), "|---|---|"]
    for key, value in used.items():
        lines.append(f"| `{key}` | {', '.join(map(str, value)) if isinstance(value, list) else value} |")
    yield "\n".join(lines) + "\n"
    versions = ", ".join(f"{name} {manifest['versions'][name]}" for name in ("torch", "transformers", "peft"))
    yield _("On {device}, with {versions}.", device=manifest["hardware"]["device"], versions=versions) + "\n"


def _limits(evaluation: dict[str, Any]) -> Iterator[str]:
    limits = [_("It was measured on rows like those it was trained on. How it does on others nobody has measured.")]
    if (rows := evaluation.get("counts", {}).get("rows", 0)) < 100:
        limits.append(_("{n} held-out rows are few: the intervals above say how little they tell.", n=rows))
    if recited := learned.recitation_words(evaluation):
        limits.append(recited)
    if overfitting := learned.overfitting_words(evaluation):
        limits.append(overfitting)
    limits.append(_("What the base got wrong, made up or was biased in, it may still."))
    yield "\n".join(f"- {limit}" for limit in limits) + "\n"


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value
