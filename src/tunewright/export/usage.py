"""Commands that use an export, for its card: they are run by a test as they stand there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tunewright.text import _


@dataclass(frozen=True)
class Use:
    """form: ``adapter``, ``merged``, ``gguf``, ``ollama`` or ``card``.  name: of the run.  base: its public name.
    base_is_public: the hub has it under that name.  gives: what the model gives back.  labels: how many it chooses
    from, 0 for none.  linear: they come from a layer of their own.  several: a row may have more than one.  texts: of a
    labelled row.  prefix: before each source.  file: of a GGUF.  system: the message that it was trained with."""

    form: str
    name: str
    base: str
    base_is_public: bool
    gives: str
    labels: int = 0
    linear: bool = False
    several: bool = False
    texts: int = 1
    prefix: str = ""
    file: str | None = None
    system: str | None = None


def usage(use: Use) -> str:
    if use.form == "ollama":
        return _block("sh", f"ollama create {_name(use)} -f Modelfile\nollama run {_name(use)}")
    if use.form == "gguf":
        ask = _LLAMA_CHAT.format(messages=_messages(use)) if use.gives == "answers" else _LLAMA_TEXT
        return _block("sh", f"llama-server -m {use.file} --jinja") + "\n" + _python(
            _LLAMA.format(file=use.file, ask=ask)
        )
    if use.form == "card":
        return _block("sh", f"tunewright export {_name(use)} --to merged")
    made = (_ADAPTER if use.form == "adapter" else _MERGED).format(
        auto=_auto(use), more_imports=_imports(use), base=_base(use), more=_more(use), generation=_generation(use)
    )
    return _python(made + _ask(use)) + _where(use)


_ADAPTER = """\
from peft import PeftModel
from transformers import {auto}, AutoTokenizer{more_imports}

folder = "."  # where this file lies
model = {auto}.from_pretrained({base}, dtype="auto"{more})
model = PeftModel.from_pretrained(model, folder)
{generation}tokenizer = AutoTokenizer.from_pretrained(folder)
"""

_MERGED = """\
from transformers import {auto}, AutoTokenizer

folder = "."  # where this file lies
model = {auto}.from_pretrained(folder, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(folder)
"""

_LLAMA = """\
from llama_cpp import Llama

model = Llama("{file}", n_ctx=512, verbose=False)
{ask}"""

_LLAMA_CHAT = """\
messages = {messages}
answer = model.create_chat_completion(messages, temperature=0, max_tokens=64)
print(answer["choices"][0]["message"]["content"].strip())
"""

_LLAMA_TEXT = """\
print(model("Put the beginning here.", temperature=0, max_tokens=64)["choices"][0]["text"])
"""


# Each label's word begins with another token: where the rows differ first, it is chosen.
_LABEL_TOKEN = """
import json
import torch

known = json.load(open(f"{folder}/label_token.json", encoding="utf-8"))
words = known["words"]
asked = known["prompts"][PROMPT].replace("{labels}", ", ".join(words.values()))PAIR
asked = asked.replace("{text}", "Put the text here.")
rows = []
for word in words.values():
    messages = [SYSTEM{"role": "user", "content": asked}, {"role": "assistant", "content": word}]
    rows.append(tokenizer.apply_chat_template(messages, return_dict=False))
place = next(number for number, tokens in enumerate(zip(*rows)) if len(set(tokens)) > 1)
logits = model(torch.tensor([rows[0][:place]])).logits[0, -1].tolist()
print(max(zip(words, rows), key=lambda label: logits[label[1][place]])[0])
"""


def _ask(use: Use) -> str:
    if use.linear and use.several:
        return f"""
inputs = tokenizer({_texts(use)}, return_tensors="pt")
likely = (model(**inputs).logits[0] > 0).nonzero().flatten().tolist()
print([model.config.id2label[number] for number in likely])
"""
    if use.linear:
        return f"""
inputs = tokenizer({_texts(use)}, return_tensors="pt")
number = int(model(**inputs).logits[0].argmax())
print(model.config.id2label[number])
"""
    if use.labels:
        pair = '.replace("{pair}", "Put the second text here.")' if use.texts > 1 else ""
        prompt = str(int(use.texts > 1))
        return _LABEL_TOKEN.replace("PROMPT", prompt).replace("PAIR", pair).replace("SYSTEM", _system(use))
    if use.gives == "outputs":
        return f"""
inputs = tokenizer({json.dumps(use.prefix + "Put the source here.", ensure_ascii=False)}, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(out[0], skip_special_tokens=True))
"""
    if use.gives == "likelihood":
        return _generate('inputs = tokenizer("Put the beginning here.", return_tensors="pt")')
    return _generate(
        f"messages = {_messages(use)}\n"
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n)',
    )  # fmt: skip


def _texts(use: Use) -> str:
    return '"Put the text here.", "Put the second text here."' if use.texts > 1 else '"Put the text here."'


def _messages(use: Use) -> str:
    return f'[{_system(use)}{{"role": "user", "content": "Who are you?"}}]'


def _system(use: Use) -> str:
    return f'{{"role": "system", "content": {use.system!r}}}, ' if use.system else ""


def _generation(use: Use) -> str:
    """PEFT does not read an adapter's generation config: the tokens that end an answer are handed over."""
    return "" if use.gives == "labels" else "model.generation_config = GenerationConfig.from_pretrained(folder)\n"


def _imports(use: Use) -> str:
    """Of an adapter."""
    if use.gives == "labels":
        return ", AutoConfig" if use.linear else ""
    return ", GenerationConfig"


def _generate(inputs: str) -> str:
    return f"""
{inputs}
out = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def _auto(use: Use) -> str:
    if use.linear:
        return "AutoModelForSequenceClassification"
    return "AutoModelForSeq2SeqLM" if use.gives == "outputs" else "AutoModelForCausalLM"


def _base(use: Use) -> str:
    return repr(use.base) if use.base_is_public else "base"


def _more(use: Use) -> str:
    if not use.linear:
        return ""
    return ", config=AutoConfig.from_pretrained(folder), ignore_mismatched_sizes=True"


def _where(use: Use) -> str:
    if use.form != "adapter" or use.base_is_public:
        return ""
    said = _("`base` is the folder of {name}. With Tunewright installed this prints it:", name=use.base)
    code = f"from tunewright.model.source import fetch; print(fetch('{use.base}').folder)"
    return f"\n{said}\n\n" + _block("sh", f'python -c "{code}"')


def _name(use: Use) -> str:
    return use.name.lower()


def _python(text: str) -> str:
    return _block("python", text.rstrip("\n"))


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"
