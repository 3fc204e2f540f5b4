"""Faults of a finished run: it is not served before it is proved."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from tests.tiny import quick
from tests.trust.conftest import Person
from tests.trust.declare import fault


@fault(
    1, "The served model uses another template than the one it was trained with; thinking appears or vanishes",
    "LF#10596, LF#9765, LF#7978, US#1832, SW#5927",
    "The template is frozen in the run, and no later verb takes another. `tunewright verify` renders the training rows "
    "again with the saved tokenizer and template, as the endpoint would, and shows the first token that differs; "
    "`tunewright export` refuses a run whose template was changed, and writes nothing.",
    """
template: the saved tokenizer and template write other ids than were learned; token 4: learned '<|im_start|>user\\n»What« is …', saved '<|im_start|>user\\n»W«HAT …'
  where: …town.jsonl:1
  do:    bring back adapter/chat_template.jinja as the run wrote it, or train again
""",  # noqa: E501
)  # fmt: skip
def test_another_template_is_shown_at_its_first_token(person: Person, run: Path) -> None:
    path = run / "adapter" / "chat_template.jinja"
    path.write_text(path.read_text().replace("message['content'] +", "message['content'].upper() +"))
    person.is_told("verify", "run", "--only", "template", code=2)
    refused = person.types("export", "run", "--to", "merged", code=2)
    assert "chat_template.jinja is not what the run wrote" in refused
    assert not (run / "export").exists()


@fault(
    2, "The end of a turn is never learned, so that answers never stop; padding that equals it hides the true end",
    "TRL#1623, TRL PR 3091, US#416, LF#5124",
    "Every learned turn ends in a learned stop token, or the base is refused before step 1; a template that writes no "
    "end gets one. All stop ids go into the generation config, and the share of answers that stop is measured.",
    """
stop: generation_config.json is not what the run froze: it lacks the stop id 2 ('<|im_end|>'), so that answers would not end; …
  where: run/adapter/generation_config.json
  do:    write these values back: {"eos_token_id": [2], …}
""",  # noqa: E501
)  # fmt: skip
def test_a_stop_id_that_is_gone_is_seen(person: Person, run: Path, base: Path) -> None:
    path = run / "adapter" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 0}))
    person.is_told("verify", "run", "--only", "stop", code=2)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("+ '<|im_end|>' + '\\n' ", ""))
    painted = person.types("data", "show", "town.jsonl", "--row", "1", "--base", base)
    assert "⟦The river is called Harrow 0.<|im_end|>⟧" in painted


@fault(
    6, "The merged model answers differently, or the adapter had no effect", "LF#3096, LF#6105, SW#7567, LF#7997",
    "`tunewright verify` compares the merged model with base and adapter, in logits and in greedy answers; an adapter "
    "that changes nothing fails; another base than the trained one is refused by its hash, whether it is to chat, to "
    "be exported or to be served. Every export is read back from the disk and compared in the same way before it is "
    "called done.",
    """
effect: the adapter is zero in each of its 14 layers, so that it changes nothing
  where: run/adapter
  do:    bring back the run's own weights, or train again
""",
)  # fmt: skip
def test_an_adapter_without_effect_and_another_base_are_refused(person: Person, run: Path, base: Path) -> None:
    edit(run / "adapter" / "adapter_model.safetensors", 0.0)
    person.is_told("verify", "run", "--only", "effect", code=2)
    person.types("train", "town.jsonl", *quick(base, "train.max_steps=1"), "--out", "other")
    edit(base / "model.safetensors", 1.5)
    for words in (["chat", "other", "-m", "What is the river called?"], ["export", "other", "--to", "merged"],
                  ["serve", "other", "--port", "0"]):  # fmt: skip
        refused = person.types(*words, code=2)
        assert "the one this run was trained on" in refused and "bring back the base with sha256" in refused
    assert not (Path("other") / "export").exists()


def edit(path: Path, factor: float) -> None:
    """All weights of a file times ``factor``."""
    save_file({name: weight * factor for name, weight in load_file(str(path)).items()}, str(path), {"format": "pt"})
