"""Weights into memory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from tunewright.data.basefiles import TOKENIZER, BaseFiles
from tunewright.data.tokens import Encoder
from tunewright.errors import BaseModelError, ResourceError
from tunewright.model.catalog import Ability, catalog, suited
from tunewright.model.labels import head_names
from tunewright.model.pooling import attend_evenly, reads_mean
from tunewright.model.source import Base, read_config
from tunewright.text import _

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Precision = Literal["bf16", "fp32"]
Head = Literal["decoder", "classifier", "encoder_decoder"]
CLASSES = {
    "decoder": AutoModelForCausalLM,
    "classifier": AutoModelForSequenceClassification,
    "encoder_decoder": AutoModelForSeq2SeqLM,
}


@dataclass(frozen=True)
class Labels:
    """What a classifier's head is made for. seed: of its first weights."""

    names: tuple[str, ...]
    multi: bool = False
    seed: int = 0

    def are_of(self, config: PretrainedConfig) -> bool:
        """Whether a model is a classifier of these labels already, so that its head means what ours would."""
        made = any("ForSequenceClassification" in str(a) for a in config.architectures or ())
        return made and list((config.id2label or {}).values()) == list(self.names)

    def config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
            "problem_type": "multi_label_classification" if self.multi else "single_label_classification",
        }


def load(
    base: Base, dtype: Precision, device: str | None = None, head: Head = "decoder", labels: Labels | None = None
) -> PreTrainedModel:
    """The base in evaluation mode, on ``device`` (``pick_device()`` by default); as a causal language model, with a
    fresh head for ``labels``, or as encoder and decoder.

    Raises BaseModelError if it is of another kind, needs its own code, or lacks weights; ResourceError if it does not
    fit into memory.
    """
    model = load_folder(base.folder, dtype, device, base.name, head, labels)
    model.name_or_path = public_name(base)
    model.config._name_or_path = model.name_or_path
    return model


def public_name(base: Base) -> str:
    """What PEFT writes into an adapter: a hub id where there is one, since a path in somebody's cache would mean
    nothing on another machine; the catalog's name for a base from a package; else the folder."""
    if base.source == "hub":
        entry = catalog().get(base.name.lower())
        return entry.id if entry and entry.id else base.name
    return base.name if base.source in ("package", "modelscope") else str(base.folder)


def load_folder(
    folder: Path, dtype: Precision, device: str | None = None, name: str | None = None, head: Head = "decoder",
    labels: Labels | None = None,
) -> PreTrainedModel:  # fmt: skip
    """As ``load``, of any folder in transformers' layout (a run's ``model/``, a merged export)."""
    name = name or str(folder)
    if head == "decoder":
        require_decoder(folder, name)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(labels.seed if labels else 0)  # a fresh head depends on the recipe's seed alone
            # `is_local` folders only: nothing is fetched here, and no code of the base is ever run.
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
            keeps_head = labels is None or labels.are_of(config)
            model, info = CLASSES[head].from_pretrained(
                str(folder), dtype=DTYPES[dtype], attn_implementation=_attention(head, config), trust_remote_code=False,
                local_files_only=True, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=not keeps_head, **(labels.config() if labels else {}),
            )  # fmt: skip
            if head == "classifier":
                _prepare_head(model, folder, fresh=not keeps_head)
    except ValueError as error:
        raise _not_loadable(name, folder, error) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(name) from error
    except (OSError, RuntimeError, KeyError) as error:
        raise BaseModelError(
            _("{name} cannot be loaded: {why}", name=name, why=_line(error)), where=str(folder),
            do=_("fetch the base again; a file in it is damaged or missing"),
        ) from error  # fmt: skip
    _require_weights(name, folder, info, head_names(model) if head == "classifier" else ())
    try:
        model.to(device or pick_device())
    except torch.OutOfMemoryError as error:
        raise _no_memory(name) from error
    model.eval()
    return model


def require_decoder(folder: Path, name: str, task: Ability = "chat") -> None:
    """Raises BaseModelError, naming bases for ``task``, unless config.json describes a model that writes text from left
    to right."""
    config = read_config(folder)
    architectures = [str(a) for a in config.get("architectures") or []]
    if writes_text(config) and not config.get("is_encoder_decoder"):
        return
    kind = _("reads a text and writes another (encoder-decoder)") if config.get("is_encoder_decoder") else _(
        "only reads text and writes none"
    )
    what = _("{name} cannot go on with a text", name=name) if task == "pretrain" else _("{name} cannot chat", name=name)
    raise BaseModelError(
        _("{what}: {architecture} {kind}", what=what, architecture=", ".join(architectures), kind=kind),
        where=str(folder / "config.json"), do=_("these would do: {names}", names=", ".join(suited(task))),
    )  # fmt: skip


def writes_text(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a model that writes text, with or without an encoder, rather than only reading it."""
    named = [str(a) for a in config.get("architectures") or []]
    return not named or any("CausalLM" in a or "LMHead" in a or "Conditional" in a for a in named)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers' own bars and remarks off; what matters in them is checked and raised by us."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def pick_device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_bf16(device: str | None = None) -> tuple[bool, str]:
    """Whether this machine multiplies bf16 matrices in hardware, and how one knows."""
    if (device or pick_device()).startswith("cuda"):
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        if major >= 8:
            return True, _("{name} (compute capability {cc}) has bf16 tensor cores", name=name, cc=f"{major}.{minor}")
        return False, _("{name} (compute capability {cc}) is older than Ampere", name=name, cc=f"{major}.{minor}")
    if torch.cpu._is_amx_tile_supported() and "amx_bf16" in _cpu_flags():
        return True, _("the CPU has AMX-BF16")
    if torch.cpu._is_avx512_bf16_supported():
        return True, _("the CPU has AVX512-BF16")
    if "bf16" in _cpu_flags():  # ARMv8.6
        return True, _("the CPU has ARM's BF16 instructions")
    return False, _("the CPU has neither AVX512-BF16 nor AMX; bf16 would be emulated")


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.split())
    return set()


def _attention(head: Head, config: PretrainedConfig) -> str:
    """``sdpa``, but for the few encoders that only come with attention written out (DeBERTa)."""
    if head != "classifier":
        return "sdpa"
    made = AutoModelForSequenceClassification._model_mapping.get(type(config), None)
    return "eager" if made is not None and not made._supports_sdpa else "sdpa"


def _prepare_head(model: PreTrainedModel, folder: Path, fresh: bool) -> None:
    """fresh: a head for other labels is given first weights, and reads what the base was made for. A base without a
    pad token gets the one its tokenizer has, or the end of the text: transformers needs one to find where a text
    ends."""
    for name in head_names(model) if fresh else ():
        if "." in name:  # the pooler belongs to the base
            continue
        module = model.get_submodule(name)
        for parameter in module.parameters():  # or transformers would leave alone what it has read from a file
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        module.apply(model._init_weights)
    if fresh and reads_mean(folder):
        attend_evenly(model)
    config = model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        files = BaseFiles.read(folder)
        encoder, named = Encoder(files.files[TOKENIZER], files.special_texts()), files.named_tokens()
        pad = encoder.find(named.get("pad_token") or named.get("eos_token") or "")
        ends = config.eos_token_id if isinstance(config.eos_token_id, int) else None
        config.pad_token_id = model.config.pad_token_id = ends if pad is None else pad


def _require_weights(name: str, folder: Path, info: dict[str, Any], heads: Sequence[str]) -> None:
    """transformers fills missing weights with noise and mentions it in a remark; here it is an error, except in a
    head, which is new."""

    def of_body(key: str) -> bool:
        return not any(key.startswith(f"{head}.") for head in heads)

    missing = sorted(filter(of_body, map(str, info["missing_keys"])))
    wrong = [key for key in (str(w[0] if isinstance(w, tuple) else w) for w in info["mismatched_keys"]) if of_body(key)]
    if missing or wrong:
        which = missing or wrong
        raise BaseModelError(
            _("{name} is incomplete: {count} weights are missing or of another shape, the first is {first}",
              name=name, count=len(missing) + len(wrong), first=which[0]),
            where=str(folder), do=_("fetch or save the base again"),
        )  # fmt: skip


def _not_loadable(name: str, folder: Path, error: ValueError) -> BaseModelError:
    if "trust_remote_code" in str(error) or "auto_map" in read_config(folder):
        what = _("{name} comes with code of its own, which is not run", name=name)
    else:
        what = _("{name} cannot be loaded: {why}", name=name, why=_line(error))
    return BaseModelError(what, where=str(folder), do=_("take a base whose architecture transformers knows itself"))


def _no_memory(name: str) -> ResourceError:
    return ResourceError(
        _("{name} does not fit into memory", name=name), do=_("take a smaller base"), command="tunewright models"
    )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
