"""``tunewright export``: a run in the form that other software reads, compared before it is called done."""

from __future__ import annotations

import click

from tunewright.cli.main import emit, json_option, verb
from tunewright.text import _


@verb(next="tunewright export --to gguf --type q4_0")
@click.argument("run", required=False)
@click.option("--to", "form", required=True, metavar="FORM", help=_("adapter, merged, gguf, ollama or card."))
@click.option("--out", type=click.Path(), metavar="FOLDER", help=_("Where to; export/FORM of the run by default."))
@click.option("--type", "kind", metavar="TYPE", help=_("Of gguf, ollama: f16, q8_0 (default), q5_0, q4_0 or q4_1."))
@click.option("--force", is_flag=True, help=_("Replace FOLDER even if it is no export of ours."))
@json_option
def command(run: str | None, form: str, out: str | None, kind: str | None, force: bool, as_json: bool) -> None:
    """Export RUN (the last one by default) in a form that other software reads.

    \b
    adapter   a PEFT folder, to be loaded on the base
    merged    the whole model as safetensors, for transformers and vLLM
    gguf      one file for llama.cpp (Llama, Qwen2 and Qwen3)
    ollama    the same file with its Modelfile
    card      the model card alone; every other form has it too

    What was written is read back from the disk and compared with the run on its own rows: ids, logits, greedy text.
    Only what holds takes its place; else nothing is left.
    """
    from tunewright import rundir
    from tunewright.cli.screen import Screen
    from tunewright.export.run import export

    made = export(rundir.find(run), form, out, kind, force, Screen())
    lines = [*made.lines, _("Exported to {folder}", folder=made.folder)]
    emit(as_json, made.record | {"folder": str(made.folder)}, "\n".join(lines))
