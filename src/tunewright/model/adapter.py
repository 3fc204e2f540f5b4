"""What of a base is trained: an adapter (LoRA), everything, or the last layers."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunewright.errors import RecipeError, ResourceError, RunError
from tunewright.model.labels import head_names, is_classifier
from tunewright.model.load import CLASSES, Head, quiet
from tunewright.recipe.schema import Recipe
from tunewright.text import _

Model: TypeAlias = PreTrainedModel | PeftModel
ALL_LINEAR = "all-linear"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(model: PreTrainedModel, recipe: Recipe) -> Model:
    """``model`` with the trained weights of ``recipe.train.method`` in fp32 and ``requires_grad``, the rest frozen as
    it was. First weights of an adapter depend on ``recipe.seed`` alone; the global generator is left as it was.

    Frozen bf16 and trained fp32 weights meet in methods ``freeze`` and ``full``: run the forward pass of a bf16
    model under ``torch.autocast``. A classifier's head is new and always trained. Raises RecipeError for targets or
    layers that the base does not have.
    """
    method = recipe.train.method
    _set_dropout(model, 0.0 if recipe.train.dropout == "auto" else recipe.train.dropout)
    if method == "lora":
        return _lora(model, recipe)
    model.requires_grad_(method == "full")
    if method == "freeze":
        for module in [*_last_layers(model, recipe.freeze.layers), *_heads(model).values()]:
            module.requires_grad_(True)
    computed = _computed(model)
    for name, parameter in model.named_parameters():
        if name in computed:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def check(folder: Path, recipe: Recipe, head: Head = "decoder") -> None:
    """Whether the base has what the recipe wants to train, before any weight is read: on a model of empty tensors.

    head: what the task puts on the base. Raises RecipeError for targets or layers that the base does not have.
    """
    method = recipe.train.method
    if method == "full" or (method == "lora" and recipe.lora.targets == [ALL_LINEAR]):
        return
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        model = CLASSES[head].from_config(config)
    if method == "lora":
        _require_targets(model, list(recipe.lora.targets))
    else:
        _last_layers(model, recipe.freeze.layers)


def linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of all linear layers that an adapter can sit on, the output layer left out: it is often
    the embedding itself, and an adapter on it would change both; a classifier's head is trained whole."""
    return sorted({name.rpartition(".")[2] for name in _linear(model)})


def _linear(model: nn.Module) -> list[str]:
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    heads = [f"{name}." for name in _heads(model)]
    linear = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    return [name for name in linear if not any(f"{name}.".startswith(head) for head in heads)]


def _set_dropout(model: nn.Module, share: float) -> None:
    """``share`` in place of what the base was made with, wherever that is not nothing.

    Some bases drop a tenth of everything while they train, each time something else, so that a step's gradient depends
    on how the step is cut, and takes longer. It stands in layers (GPT-2, BERT, T5) or as numbers (BART, Marian).
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.p = share
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float) and value > 0:
                setattr(module, name, share)


def _heads(model: nn.Module) -> dict[str, nn.Module]:
    """What a classifier has on top of its base; nothing for a model that writes text."""
    return {name: model.get_submodule(name) for name in head_names(model)} if is_classifier(model) else {}


def counts(model: nn.Module) -> tuple[int, int]:
    """(trained, all) parameters, as PEFT's ``print_trainable_parameters`` counts them: tied weights once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def counts_line(model: nn.Module) -> str:
    trained, total = counts(model)
    return f"trainable params: {trained:,} || all params: {total:,} || trainable%: {100 * trained / total:.4f}"


def save(
    model: Model, folder: Path, template_files: Callable[[Path], None], generation_config: dict[str, Any]
) -> None:
    """The adapter in PEFT's layout, or the whole model, with tokenizer, template and generation config.

    template_files: writes tokenizer and template files into the folder it is given. ``folder`` appears when it is
    whole, in place of one that was there. Raises ResourceError if the disk is full.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with _writing(folder, unfinished):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with quiet():
            if isinstance(model, PeftModel):
                # Without the second word PEFT would ask a hub whether the vocabulary grew.
                model.save_pretrained(str(unfinished), save_embedding_layers=False)
                (unfinished / "README.md").unlink(missing_ok=True)  # a model card with nothing but blanks in it
                _sorted_targets(unfinished / "adapter_config.json")
                if is_classifier(model):  # the names of the labels, with their numbers
                    model.get_base_model().config.save_pretrained(str(unfinished))
            else:
                if generation_config:
                    model.generation_config = GenerationConfig(**generation_config)
                write_whole(model, unfinished)
        template_files(unfinished)
        if generation_config:  # a model that chooses labels generates nothing
            text = json.dumps(generation_config, ensure_ascii=False, indent=2) + "\n"
            (unfinished / "generation_config.json").write_text(text, encoding="utf-8")
        for path in unfinished.iterdir():
            path.chmod(0o644)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(unfinished, folder)


def write_whole(model: PreTrainedModel, folder: Path) -> None:
    """Weights and config of a whole model in transformers' layout.

    transformers 5 calls every T5 tied, sees by the weights whether one is, and writes that it is. A reader that
    believes the config would put the embeddings in place of an output matrix of its own (T5 1.1, Flan-T5), so that of
    such a model the config says what is true.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    own_head = head is not None and embedding is not None and head.weight is not embedding.weight
    if own_head and getattr(model.config, "scale_decoder_outputs", None) is False:
        model.config.tie_word_embeddings = False
    model.save_pretrained(str(folder))


def load_run(model: PreTrainedModel, folder: Path) -> Model:
    """``model`` (the run's base) with what a run trained: its ``adapter/`` attached, or its ``model/`` read in place of
    the base's weights. In evaluation mode. Raises RunError if the folder is damaged or was trained on another base."""
    try:
        with quiet():
            if (folder / "adapter_config.json").exists():
                _require_here(folder / "adapter_model.safetensors")
                for module in _heads(model).values():  # fp32, as it was trained
                    module.float()
                tuned: Model = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
            else:
                tuned = _read_weights(model, folder)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            _("the trained weights cannot be read: {why}", why=why), where=str(folder),
            do=_("train again, or go on from the run's last checkpoint"), command="tunewright resume RUN",
        ) from error  # fmt: skip
    tuned.eval()
    return tuned


def _require_here(weights: Path) -> None:
    """PEFT asks a hub for a file that is not in the folder."""
    if not weights.is_file():
        raise FileNotFoundError(_("{name} is missing", name=weights.name))


def _lora(model: PreTrainedModel, recipe: Recipe) -> Model:
    lora = recipe.lora
    targets: str | list[str] = list(lora.targets)
    if lora.targets == [ALL_LINEAR]:
        targets = linear_names(model)
    else:
        _require_targets(model, lora.targets)
    heads = _heads(model)
    for module in heads.values():
        module.float()
    whole = sorted(set(heads) - {"classifier", "score"})
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets,  # type: ignore[arg-type]
        task_type=_task_type(model), fan_in_fan_out=_is_conv1d(model, targets),
        modules_to_save=whole or None,  # PEFT adds the two other names itself, and puts no adapter inside of these
    )  # fmt: skip
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def _require_targets(model: PreTrainedModel, wanted: list[str]) -> None:
    known = linear_names(model)
    full = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))]
    if heads := _heads(model):  # whose layers are trained whole, and get no adapter
        full = [n for n in full if not any(f"{n}.".startswith(f"{head}.") for head in heads)]
    for name in wanted:
        if name == ALL_LINEAR:
            raise RecipeError(
                _("`all-linear` already means every name; write it alone"), where="lora.targets",
                command="tunewright recipe explain lora.targets",
            )  # fmt: skip
        # The same rule as PEFT's: a whole name, or its last parts.
        if name in known or any(n == name or n.endswith(f".{name}") for n in full):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = _("did you mean {name}? ", name=near[0]) if near else ""
        raise RecipeError(
            _("the base has no linear layer called {name!r}", name=name), where="lora.targets",
            do=hint + _("it has: {names}", names=", ".join(known)), command="tunewright recipe explain lora.targets",
        )  # fmt: skip


def _task_type(model: PreTrainedModel) -> str:
    if is_classifier(model):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _is_conv1d(model: nn.Module, targets: str | list[str]) -> bool:
    """GPT-2 keeps its weights transposed, and PEFT wants to be told."""
    return any(isinstance(m, Conv1D) and n.rpartition(".")[2] in targets for n, m in model.named_modules())


def _last_layers(model: PreTrainedModel, wanted: int) -> list[nn.Module]:
    """The last ``wanted`` blocks, and the norm behind them, which their output goes through."""
    parent, name, blocks = _blocks(model)
    if wanted > len(blocks):
        raise RecipeError(
            _("the base has {have} layers, and {wanted} are to be trained", have=len(blocks), wanted=wanted),
            where="freeze.layers", do=_("give at most {have}", have=len(blocks)),
            command="tunewright recipe explain freeze.layers",
        )  # fmt: skip
    others = [(n, m) for n, m in parent.named_children() if n != name and "embed" not in n]
    norms = [m for _name, m in others if "norm" in type(m).__name__.lower()]
    return [*blocks[-wanted:], *norms[-1:]]


def _blocks(model: PreTrainedModel) -> tuple[nn.Module, str, nn.ModuleList]:
    """The decoder's list of layers, with the module that holds it: the longest list of equal blocks there is. Of an
    encoder-decoder it is the decoder that writes, so the last layers are its own."""
    lists = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    if model.config.is_encoder_decoder:
        lists = [(path, m) for path, m in lists if "decoder" in path.split(".")] or lists
    found = [(path, m) for path, m in lists if len({type(block) for block in m}) == 1]
    if not found:
        raise RecipeError(
            _("this base has no list of layers, so the last ones cannot be told"), where="train.method",
            do=_("use the method lora or full"), command="tunewright recipe explain train.method",
        )  # fmt: skip
    path, blocks = max(found, key=lambda item: len(item[1]))
    parent, _dot, name = path.rpartition(".")
    return model.get_submodule(parent), name, blocks


def _sorted_targets(path: Path) -> None:
    """PEFT writes a set, in another order each time; the same run should give the same bytes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _computed(model: PreTrainedModel) -> set[str]:
    """Weights that no file holds, because they are computed when a model is made (Marian's sines of positions): never
    trained, though transformers counts them as trainable."""
    return set(model._keys_to_ignore_on_save or ()) & {name for name, _weight in model.named_parameters()}


def _read_weights(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Copies ``folder``'s safetensors over the model's weights; each weight must be there, tied ones once."""
    files = sorted(folder.glob("*.safetensors"))
    own = dict(model.named_parameters())  # tied weights stand here once
    seen: set[str] = set()
    for path in files:
        with safe_open(str(path), framework="pt") as weights, torch.no_grad():
            for name in weights.keys():  # noqa: SIM118 - not a dict
                if name in own:
                    own[name].copy_(weights.get_tensor(name))
                    seen.add(name)
    if missing := sorted(set(own) - seen - _computed(model)):
        raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
    return model


@contextlib.contextmanager
def _writing(folder: Path, unfinished: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        number = getattr(error, "errno", None)
        full = number in DISK_FULL or any(os.strerror(n) in str(error) for n in DISK_FULL)
        raise ResourceError(
            _("the disk is full") if full else _("cannot write: {why}", why=str(error)), where=str(folder),
            do=_("free some space; the last checkpoint is kept"), command="tunewright doctor",
        ) from error  # fmt: skip
