"""The forms ``gguf`` and ``ollama``: written, and compared as transformers and, where it is installed, llama.cpp read
them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gguf import GGUFReader

from tunewright.data.basefiles import TEMPLATE, BaseFiles
from tunewright.data.template import ChatTemplate
from tunewright.errors import MissingExtra, RunError
from tunewright.export import compare, gguf_model, ollama, readers, vocabulary
from tunewright.export.asking import compare_opened, most_tokens
from tunewright.export.llama import EXTRA, LlamaCpp, is_installed
from tunewright.export.pieces import Pieces
from tunewright.export.vocabulary import Vocabulary
from tunewright.export.work import Work
from tunewright.infer.open import saved_codec, saved_generation
from tunewright.model.catalog import catalog
from tunewright.text import _

# Beside the run's own rows: what rules for cutting text into words differ in.
ODD_TEXTS = (
    "In 1990 there were 12345 of 678.", "x   42  y", "It's 3 o'clock, they'LL say; don't!",
    "  two spaces\n\n\tand a tab  ", "你好，世界。今天是2024年5月。", "naïve café — “quoted” …",
    "def f(a_b):\n    return a_b[0] != 1_000\r\n", "🙂🙂 🇫🇷",
)  # fmt: skip


def read_vocabulary(work: Work, config: Any) -> Vocabulary:
    """Raises RunError for a base or a tokenizer that no GGUF file of ours can hold, MissingExtra for one whose ids only
    llama.cpp can compare."""
    subject = work.subject
    gguf_model.require(config, str(work.base.folder / "config.json"))
    codec = saved_codec(subject.folder, subject.recipe, subject.labels)
    template, end = BaseFiles.read(subject.folder).named_templates().get("default"), None
    if isinstance(codec, ChatTemplate):
        template, end = codec.source, codec.stop_ids[0]
    generation = saved_generation(subject.folder, subject.task)
    held = vocabulary.read(subject.folder, config.vocab_size, generation, end, template)
    if isinstance(held.joining, Pieces) and not is_installed():
        # transformers' reader of GGUF puts the space before a text's first word only, whatever the file says.
        raise MissingExtra("llama-cpp-python", EXTRA, _("comparing a GGUF file of a tokenizer like SentencePiece's"))
    return held


def write_and_compare(work: Work, then: compare.Reference, model: Any, held: Vocabulary) -> None:
    """model: the run's, whole; it is let go of before the file is read back."""
    subject, name, kind = work.subject, str(work.use.file), work.kind
    assert kind is not None
    path, config = work.folder / name, model.config
    entry = catalog().get(work.base.name.lower())
    about = {"name": work.use.name} | ({"license": entry.licence} if entry else {})
    with subject.listener.doing(_("Writing {name}", name=name), len(model.state_dict())) as progress:
        written = gguf_model.write(path, model, kind, held, about, progress)
    model = None
    _require_whole(work, written, held)
    if not is_installed():
        _compare_ids(work, "transformers", None)
    opened, told = readers.gguf(subject, work.folder, name, config)
    if told:
        work.record["notes"].append(
            _("transformers' reader of GGUF leaves {keys} unread; it was told them", keys=", ".join(told))
        )
    compare_opened(work, "transformers", then, opened)
    del opened
    if is_installed():
        _compare_in_llama(work, then, held)
    else:
        work.record["notes"].append(
            _("llama.cpp did not check this file; the extra {extra} brings it: pip install 'tunewright[{extra}]'",
              extra=EXTRA)
        )


def modelfile_of(work: Work, held: Vocabulary) -> str:
    """Raises RunError for a chat template that Ollama's language cannot say."""
    codec = saved_codec(work.subject.folder, work.subject.recipe, work.subject.labels)
    assert isinstance(codec, ChatTemplate)
    opening = held.tokens[held.begin] if held.opens and held.begin is not None else ""
    turns = ollama.turns_of(codec, opening, str(work.subject.folder / TEMPLATE))
    about = [
        _("{name}, made with Tunewright. Use it: ollama create {lower} -f Modelfile", name=work.use.name,
          lower=work.use.name.lower()),
        _("The template is the run's own, in Ollama's language; tools are not written by it."),
    ]  # fmt: skip
    stops = [held.tokens[stop] for stop in held.stops]
    return ollama.modelfile(str(work.use.file), turns, stops, work.subject.recipe.data.system, about)


def _require_whole(work: Work, written: gguf_model.Written, held: Vocabulary) -> None:
    """What the ``gguf`` package reads in the file is what was to be written."""
    path = work.folder / str(work.use.file)
    reader = GGUFReader(path)
    there = {tensor.name: (tensor.tensor_type, tensor.shape.tolist()[::-1]) for tensor in reader.tensors}
    template = reader.get_field("tokenizer.chat_template")
    whole = there == written and (None if template is None else template.contents()) == held.template
    if not whole:
        raise RunError(_("the file that was written does not hold the model"), where=str(path),
                       do=_("report this run"), command="tunewright export --to merged")  # fmt: skip


def _texts(work: Work) -> list[str]:
    codec = work.subject.ready.prepared.codec
    rows = [codec.decode(row.ids.tolist()) for row in work.subject.rows]
    prompts = [codec.decode(list(question.prompt)) for question in work.subject.questions]
    return [text for text in dict.fromkeys((*rows, *prompts, *ODD_TEXTS)) if text]


def _compare_ids(work: Work, reader: str, llama: LlamaCpp | None) -> None:
    """The ids that the file gives a text are those that the run's own tokenizer gives it."""
    texts, name = _texts(work), str(work.use.file)
    own = work.subject.folder
    found = [llama.ids(text) for text in texts] if llama else readers.gguf_ids(work.folder, name, texts)
    count = readers.require_same_ids(reader, readers.tokenizer_of(own), texts, found, str(own))
    work.record["ids"] = {"reader": reader, "texts": len(texts), "ids": count}


def _compare_in_llama(work: Work, then: compare.Reference, held: Vocabulary) -> None:
    subject, rows = work.subject, work.subject.rows
    prompts = [question.prompt for question in subject.questions] if then.answers else []
    most = most_tokens(subject) if prompts else 0
    longest = max([row.length for row in rows] + [len(prompt) + most for prompt in prompts])
    llama = LlamaCpp(work.folder / str(work.use.file), longest, len(held.tokens))
    try:
        reader = f"llama.cpp ({llama.version})"
        _compare_ids(work, reader, llama)
        for stop in held.stops:
            if not llama.ends(stop):
                raise RunError(
                    _("llama.cpp does not end an answer at {text!r}, as the run does", text=held.tokens[stop]),
                    where=str(subject.folder), do=_("report this run"), command="tunewright export --to merged",
                )  # fmt: skip
        with subject.listener.doing(_("Asking llama.cpp"), len(rows)) as progress:
            logits, places = llama.logits(rows, progress)
        answers: list[list[int]] = []
        if prompts:
            with subject.listener.doing(_("Answering in llama.cpp"), len(prompts)) as progress:
                answers = llama.answers(prompts, most, progress)
    finally:
        llama.close()
    same = replace(then, logits=then.logits[places], base_logits=then.base_logits[places])
    limit = compare.allowed(work.kind, str(subject.recipe.train.precision))
    work.record["comparisons"].append(compare.compared(reader, same, logits, answers, limit, str(subject.run)))
