"""Which of llama.cpp's rules for cutting text into words is the run's own.

A GGUF file names such a rule (``tokenizer.ggml.pre``) and does not hold it. llama.cpp's own converter guesses the name
from the ids of one sample text; here it is read off the rule that stands in the run's ``tokenizer.json``, because two
rules may agree on a sample and differ elsewhere: SmolLM2's base that came from a GGUF file cuts ``x   42`` otherwise
than the ``smollm`` rule, though the sample's ids are the same. A rule that llama.cpp does not have is refused.
"""

from __future__ import annotations

from typing import Any

from tunewright.export.refusal import refused, require_plain_tokens
from tunewright.text import _

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
THREE_DIGITS = _WORDS + r"\p{N}{1,3}" + _REST  # Llama 3
ONE_DIGIT = _WORDS + r"\p{N}" + _REST  # Qwen2, Qwen3

# (rule, the whole word first where the vocabulary has it) -> llama.cpp's name.
NAMES: dict[tuple[str, bool], str] = {
    ("gpt-2", False): "gpt-2",
    ("digits gpt-2", False): "smollm",
    (THREE_DIGITS, True): "llama-bpe",
    (THREE_DIGITS, False): "smaug-bpe",
    (ONE_DIGIT, False): "qwen2",
}


def name_of(tokenizer: dict[str, Any], where: str) -> str:
    """llama.cpp's name for how ``tokenizer`` (the content of a tokenizer.json) cuts text.

    Raises RunError for a tokenizer that GGUF's ``gpt2`` vocabulary cannot hold, and for an unknown rule.
    """
    model = tokenizer.get("model") or {}
    kind = model.get("type")
    if kind != "BPE" or not _is_byte_level(tokenizer):
        what = _("GGUF export knows BPE that can spell any byte, and this run's tokenizer is another ({kind})",
                 kind=_("BPE over characters") if kind == "BPE" else kind)  # fmt: skip
        raise refused(what, where)
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        raise refused(_("the run's tokenizer marks parts of words in a way that GGUF has no place for"), where)
    if (tokenizer.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        raise refused(_("the run's tokenizer rewrites text before it reads it, which llama.cpp does not do"), where)
    require_plain_tokens(tokenizer, where)
    name = NAMES.get((_rule(tokenizer.get("pre_tokenizer") or {}), bool(model.get("ignore_merges"))))
    if name is None:
        raise refused(_("the run's tokenizer cuts text by a rule that llama.cpp has no known name for"), where)
    return name


def _rule(made: dict[str, Any]) -> str:
    """The rule in words or as its regular expression; empty for one that is none of the known."""
    parts = [dict(part) for part in made.get("pretokenizers", [made])]
    if any(part.get("add_prefix_space") for part in parts):
        return ""
    match [part.get("type") for part in parts]:
        case ["ByteLevel"] if parts[0].get("use_regex", True):
            return "gpt-2"
        case ["Digits", "ByteLevel"] if parts[0].get("individual_digits") and parts[1].get("use_regex", True):
            return "digits gpt-2"
        case ["Split", "ByteLevel"] if not parts[1].get("use_regex", True):
            split = parts[0]
            if split.get("behavior") == "Isolated" and not split.get("invert"):
                return str((split.get("pattern") or {}).get("Regex") or "")
    return ""


def _is_byte_level(tokenizer: dict[str, Any]) -> bool:
    made = tokenizer.get("pre_tokenizer") or {}
    return any(part.get("type") == "ByteLevel" for part in made.get("pretokenizers", [made]))
