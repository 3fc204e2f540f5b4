"""Each fault is planted in a real run, and the proof it belongs to says what is wrong; the others hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import quick, write_chats
from tests.verify.conftest import QUICK_PROOFS, Verify, failed

from tunewright import api
from tunewright.cli.main import main
from tunewright.verify import merge


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2))


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_sound_run_passes(town: Path, verified: Verify) -> None:
    proofs = verified()
    assert {name: proof["outcome"] for name, proof in proofs.items()} == dict.fromkeys(QUICK_PROOFS, "pass")
    assert proofs["template"]["values"] == {
        "examples": 20, "rows": 20, "ids": 770, "prompts": 20, "by_transformers": 40
    }  # fmt: skip
    assert proofs["stop"]["values"]["stop_ids"] == [2] and proofs["stop"]["values"]["learned_ends"] == 20
    assert proofs["merge"]["values"]["top_1_agreement"] == 1.0 and proofs["merge"]["values"]["equal_answers"] == 4
    assert proofs["effect"]["values"]["divergence"] > 0.01
    assert all(proof["notes"] == [] for proof in proofs.values())


# ---- template --------------------------------------------------------------------------------------------------------


def test_an_edited_template_is_shown_at_its_first_token(town: Path, verified: Verify) -> None:
    replace(town / "run" / "adapter" / "chat_template.jinja", "message['content'] +", "message['content'].upper() +")
    proofs = verified()
    assert failed(proofs) == ["template"]
    proof = proofs["template"]
    assert "write other ids than were learned" in proof["what"] and "»" in proof["what"]
    assert "token 4: learned '<|im_start|>user\\n»What« is" in proof["what"] and "saved" in proof["what"]
    assert "town.jsonl:" in proof["where"] and "adapter/chat_template.jinja" in proof["do"]


def test_a_generation_prompt_that_is_gone_is_seen_in_the_prompts(town: Path, verified: Verify) -> None:
    """The rows are the same without it; only what the model is asked with differs."""
    replace(town / "run" / "adapter" / "chat_template.jinja", "add_generation_prompt", "no_such_thing")
    assert failed(verified()) == ["template"]


def test_a_template_that_is_broken_is_no_traceback(town: Path, verified: Verify) -> None:
    replace(town / "run" / "adapter" / "chat_template.jinja", "{% endfor %}", "")
    proofs = verified(only=["template", "identity"])
    assert failed(proofs) == ["template"] and "template" in proofs["template"]["what"]


def test_another_tokenizer_is_seen(town: Path, verified: Verify) -> None:
    def drop_merges(content: dict[str, Any]) -> None:
        del content["model"]["merges"][-40:]

    edit(town / "run" / "adapter" / "tokenizer.json", drop_merges)
    assert failed(verified(only=["template", "identity"])) == ["template"]


def test_a_file_that_changed_without_changing_these_rows_is_named(town: Path, verified: Verify) -> None:
    edit(town / "run" / "adapter" / "tokenizer_config.json", lambda content: content.update(model_max_length=100))
    proofs = verified(only=["template", "identity"])
    assert failed(proofs) == ["template"]
    assert "adapter/tokenizer_config.json changed after the run ended" in proofs["template"]["what"]


# ---- stop ------------------------------------------------------------------------------------------------------------


def test_a_stop_id_that_is_dropped(town: Path, verified: Verify) -> None:
    edit(town / "run" / "adapter" / "generation_config.json", lambda content: content.update(eos_token_id=[0]))
    proofs = verified()
    assert failed(proofs) == ["stop"]
    assert "lacks the stop id 2 ('<|im_end|>')" in proofs["stop"]["what"]
    assert "generation_config.json" in proofs["stop"]["where"] and '"eos_token_id": [2]' in proofs["stop"]["do"]


@pytest.mark.parametrize("value", [None, ["x"], "2"])
def test_a_stop_id_that_is_none(value: Any, town: Path, verified: Verify) -> None:
    """Nothing can be opened with it, so that what needs the model open fails as well, and says why."""
    edit(town / "run" / "adapter" / "generation_config.json", lambda content: content.update(eos_token_id=value))
    proofs = verified()
    assert failed(proofs) == ["stop", "merge", "effect"]
    assert "lacks the stop id 2 ('<|im_end|>')" in proofs["stop"]["what"]
    assert "does not say which tokens end an answer" in proofs["effect"]["what"]
    assert main(["chat", "run", "-m", "Who?"]) == 2


def test_a_generation_config_that_is_gone(town: Path, verified: Verify) -> None:
    (town / "run" / "adapter" / "generation_config.json").unlink()
    proofs = verified(only=["template", "stop", "identity"])
    assert failed(proofs) == ["stop"] and "the run has no generation_config.json" in proofs["stop"]["what"]


@pytest.mark.parametrize(("key", "value", "told"), [
    ("eos_token_id", [2, 40], "it ends answers at 40"), ("do_sample", True, "do_sample was False, is True"),
])  # fmt: skip
def test_a_generation_config_that_says_something_else(
    key: str, value: Any, told: str, town: Path, verified: Verify
) -> None:
    edit(town / "run" / "adapter" / "generation_config.json", lambda content: content.update({key: value}))
    proofs = verified(only=["stop", "identity"])
    assert failed(proofs) == ["stop"] and told in proofs["stop"]["what"]


def test_answers_that_do_not_end_any_more(town: Path, verified: Verify, tmp_path: Path) -> None:
    """A run whose answers ended, with the weights of its base, whose answers do not."""
    words = ["train.method=full", "train.epochs=30", "evaluate.rows=4", "evaluate.max_new_tokens=64"]
    api.train("town.jsonl", quick(town / "base", *words), out=tmp_path / "full")
    assert verified(str(tmp_path / "full"), only=["stop"])["stop"]["values"]["stopped"] == 4
    shutil.copy(town / "base" / "model.safetensors", tmp_path / "full" / "model")
    proofs = verified(str(tmp_path / "full"), only=["stop", "effect"])
    assert failed(proofs) == ["stop", "effect"]
    assert proofs["stop"]["what"].startswith("answers do not end any more: 0 of 4 now, 4 when")


# ---- merge -----------------------------------------------------------------------------------------------------------


def test_a_merge_that_loses_the_adapter(town: Path, verified: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "merged", lambda model: model.unload().eval())
    proofs = verified()
    assert failed(proofs) == ["merge"]
    assert "more than rounding explains" in proofs["merge"]["what"]


def test_an_adapter_smaller_than_the_last_bit_of_the_weights_is_lost(
    home: Path, tiny_base: Path, verified: Verify
) -> None:
    """In bf16 a weight of 0.375 moves by 2⁻⁹ or not at all: beside the base the adapter acts, merged it is gone."""
    path = Path(shutil.copytree(tiny_base, home / "base")) / "model.safetensors"
    weights = {name: 0.375 * w.sign() if "_proj" in name else w for name, w in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    api.train("town.jsonl", quick(home / "base", "train.precision=bf16", "train.learning_rate=1e-4"), out="run")
    proof = verified(only=["merge"])["merge"]
    assert proof["outcome"] == "fail" and proof["values"]["lost_effect"] > 0.9
    assert proof["what"] == "rounding to bf16 loses the adapter: merged, the model is nearer to the base"
    assert "unmerged" in proof["do"]


# ---- effect ----------------------------------------------------------------------------------------------------------


def zero(run: Path) -> None:
    path = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: torch.zeros_like(w) if "lora_B" in name else w for name, w in weights.items()}, path)


def test_a_zeroed_adapter(town: Path, verified: Verify) -> None:
    zero(town / "run")
    proofs = verified(only=["template", "merge", "effect", "identity"])
    assert failed(proofs) == ["effect", "identity"]
    assert "the adapter is zero in each of its 14 layers" in proofs["effect"]["what"]
    assert proofs["effect"]["values"]["divergence"] == 0.0
    assert "adapter/adapter_model.safetensors is not what the run wrote" in proofs["identity"]["what"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_learning_rate_that_was_too_low(method: str, town: Path, verified: Verify, tmp_path: Path) -> None:
    words = ["train.learning_rate=1e-9", "train.epochs=1", f"train.method={method}"]
    api.train("town.jsonl", quick(town / "base", *words), out=tmp_path / "low")
    proofs = verified(str(tmp_path / "low"), only=["merge", "effect", "identity"])
    assert failed(proofs) == ["effect"] and "nothing was learned" in proofs["effect"]["what"]
    assert "train.learning_rate" in proofs["effect"]["do"]


# ---- identity --------------------------------------------------------------------------------------------------------


def test_another_base(town: Path, verified: Verify) -> None:
    """Nothing else can be proved then, which is said instead of failed."""
    flip(town / "base" / "model.safetensors", -1)
    proofs = verified()
    assert failed(proofs) == ["identity"]
    assert "is not the one this run was trained on: model.safetensors" in proofs["identity"]["what"]
    assert all(proofs[name]["outcome"] == "not applicable" for name in QUICK_PROOFS if name != "identity")
    assert "see identity" in proofs["merge"]["numbers"]


def test_another_base_is_no_success_where_identity_is_not_asked(town: Path, verified: Verify) -> None:
    flip(town / "base" / "model.safetensors", -1)
    assert failed(verified(only=["effect"])) == ["effect"]


def test_a_base_that_is_gone(town: Path, verified: Verify) -> None:
    (town / "base" / "config.json").unlink()
    proofs = verified()
    assert failed(proofs) == ["identity"] and "the base cannot be read" in proofs["identity"]["what"]


@pytest.mark.parametrize("gone", [True, False])
def test_other_data(gone: bool, town: Path, verified: Verify) -> None:
    (town / "town.jsonl").unlink() if gone else write_chats(town / "town.jsonl", word="Harlow")
    proofs = verified()
    assert failed(proofs) == ["identity"]
    assert "town.jsonl" in proofs["identity"]["what"]
    assert ("cannot be read" if gone else "has changed since") in proofs["identity"]["what"]
    assert proofs["template"]["outcome"] == "not applicable"


def test_another_recipe(town: Path, verified: Verify) -> None:
    replace(town / "run" / "recipe.yaml", "learning_rate: 0.01 ", "learning_rate: 0.02 ")
    proofs = verified()
    assert failed(proofs) == ["identity"]
    assert "train.learning_rate was 0.01, is 0.02" in proofs["identity"]["what"]


@pytest.mark.parametrize(("key", "value"), [("data_sha256", "0" * 64), ("seed", 7), ("recipe", {"task": "chat"})])
def test_an_edited_manifest(key: str, value: Any, town: Path, verified: Verify) -> None:
    edit(town / "run" / "manifest.json", lambda content: content.update({key: value}))
    proofs = verified(only=["identity"])
    assert failed(proofs) == ["identity"] and f"manifest.json was edited: {key}" in proofs["identity"]["what"]


def test_a_flipped_byte_in_the_weights(town: Path, verified: Verify) -> None:
    flip(town / "run" / "adapter" / "adapter_model.safetensors", -2)
    assert failed(verified(only=["template", "identity"])) == ["identity"]


def test_a_flipped_byte_in_a_checkpoint(town: Path, verified: Verify) -> None:
    flip(town / "run" / "checkpoints" / "step-100" / "optimizer.pt")
    proofs = verified()
    assert failed(proofs) == ["identity"]
    assert proofs["identity"]["what"] == "checkpoint step-100: optimizer.pt is damaged"


def test_the_last_checkpoint_is_missing(town: Path, verified: Verify) -> None:
    """A run saves its last step; an earlier one may have been pruned."""
    folder = town / "run" / "checkpoints"
    assert verified(only=["identity"])["identity"]["values"]["missing_checkpoint"] is None
    assert sorted(path.name for path in folder.iterdir()) == ["step-100", "step-200"]
    shutil.rmtree(folder / "step-200")
    proofs = verified(only=["identity"])
    assert failed(proofs) == ["identity"]
    assert proofs["identity"]["what"] == "checkpoint step-200, the run's last, is missing"


def test_a_run_without_any_checkpoint_is_told(town: Path, verified: Verify) -> None:
    """Whoever needs the room may remove them; the run is what it says all the same."""
    shutil.rmtree(town / "run" / "checkpoints")
    proof = verified(only=["identity"])["identity"]
    assert proof["outcome"] == "pass" and "has no checkpoints any more" in proof["notes"][0]
    assert proof["values"]["missing_checkpoint"] == 200


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("base", 5, "base"), ("base", {}, "base.name"), ("data", "x", "data"), ("data", [None], "data[0]"),
     ("data_sha256", None, "data_sha256"), ("labels", None, "labels"), ("recipe_sha256", {}, "recipe_sha256"),
     ("versions", ["x"], "versions"), ("trained", [None], "trained"), ("trained", None, "trained")],
)  # fmt: skip
def test_a_manifest_of_other_kinds(
    key: str, value: Any, told: str, town: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(town / "run" / "manifest.json", lambda content: content.update({key: value}))
    for words in (["verify", "run", "--only", "identity"], ["export", "run", "--to", "card", "--out", "card"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "manifest.json is damaged" in said and told in said
        assert "type:  tunewright train run/recipe.yaml" in said
    assert not (town / "card").exists()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("manifest.json", "hardware", {}), ("manifest.json", "versions", {}), ("manifest.json", "recipe", {}),
     ("evaluation.json", "before", 5), ("evaluation.json", "counts", []), ("evaluation.json", "recited", "x"),
     ("ledger.json", "left_out", [None]), ("ledger.json", "tokens", {}), ("findings.jsonl", "code", 5)],
)  # fmt: skip
def test_a_card_of_damaged_files(
    name: str, key: str, value: Any, town: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = town / "run" / name
    content = json.loads(path.read_text()) if name.endswith(".json") else {}
    path.write_text(json.dumps(content | {key: value}) + "\n")
    assert main(["export", "run", "--to", "card", "--out", "card"]) == 2
    said = capsys.readouterr().err
    assert f"{name} is damaged" in said and not (town / "card").exists()


def test_measurements_that_are_damaged(town: Path, verified: Verify) -> None:
    edit(town / "run" / "evaluation.json", lambda content: content.update(rows=[None]))
    (town / "run" / "metrics.jsonl").write_text('5\n{"tokens_per_second": 5}\n')
    proofs = verified(only=["stop", "resume"])
    assert failed(proofs) == ["stop", "resume"]
    assert "evaluation.json is damaged" in proofs["stop"]["what"]
    assert "metrics.jsonl is damaged" in proofs["resume"]["what"]


def test_weights_that_cannot_be_read(town: Path, verified: Verify) -> None:
    path = town / "run" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    proofs = verified()
    assert failed(proofs) == ["stop", "merge", "effect", "identity"]
    assert "the trained weights cannot be read" in proofs["effect"]["what"]


@pytest.mark.parametrize(("name", "content", "told"), [
    ("adapter_model.safetensors", None, "adapter_model.safetensors is missing"),
    ("adapter_config.json", None, "the trained weights cannot be read"),
    ("adapter_config.json", "[]", "the trained weights cannot be read"),
    ("adapter_config.json", "{", "the trained weights cannot be read"),
])  # fmt: skip
def test_an_adapter_that_is_not_whole(name: str, content: str | None, told: str, town: Path, verified: Verify) -> None:
    """Of a missing file no hub is asked, and nothing ends in a traceback."""
    path = town / "run" / "adapter" / name
    path.unlink() if content is None else path.write_text(content)
    proofs = verified(only=["effect", "identity"])
    assert failed(proofs) == ["effect", "identity"]
    assert told in proofs["effect"]["what"]
    assert f"adapter/{name} is not what the run wrote" in proofs["identity"]["what"]


def test_a_whole_model_in_the_adapters_place(town: Path, verified: Verify) -> None:
    """There is nothing to switch off in it, and no traceback says so."""
    api.Run.open("run").export("merged", out="whole")
    shutil.rmtree(town / "run" / "adapter")
    (town / "whole").rename(town / "run" / "adapter")
    proofs = verified(only=["merge", "effect", "identity"])
    assert failed(proofs) == ["merge", "effect", "identity"]
    for name in ("merge", "effect"):
        assert proofs[name]["what"] == "adapter/ holds a whole model and no adapter"
        assert proofs[name]["where"] == "run/adapter"
    assert "adapter/adapter_config.json is not what the run wrote" in proofs["identity"]["what"]


def test_a_template_that_was_put_beside_the_runs_own_is_named(town: Path, verified: Verify) -> None:
    (town / "run" / "adapter" / "added_tokens.json").write_text("{}")
    proofs = verified(only=["template"])
    assert failed(proofs) == ["template"] and "adapter/added_tokens.json" in proofs["template"]["what"]


@pytest.mark.parametrize(
    ("name", "proof"),
    [("special_tokens_map.json", "template"), ("vocab.json", "template"), ("tokenizer.model", "template"),
     ("additional_chat_templates", "template"), ("processing_own.py", "template"), ("adapter_model.bin", "identity"),
     ("model.safetensors", "identity"), ("config.json", "identity")],
)  # fmt: skip
def test_a_file_that_was_put_among_the_runs_own_is_named(name: str, proof: str, town: Path, verified: Verify) -> None:
    folder = town / "run" / "adapter"
    (folder / name).mkdir() if "." not in name else (folder / name).write_text('{"eos_token": "<|endoftext|>"}')
    proofs = verified(only=["template", "identity"])
    assert failed(proofs) == [proof] and f"adapter/{name}" in proofs[proof]["what"]


def test_notes_among_the_runs_own_files_are_nobodys_business(town: Path, verified: Verify) -> None:
    for name in ("README.md", "LICENSE", ".DS_Store", "curve.png"):
        (town / "run" / "adapter" / name).write_text("noted")
    assert failed(verified(only=["template", "identity"])) == []


def test_half_of_an_adapter_is_told_from_all_of_it(town: Path, verified: Verify) -> None:
    path = town / "run" / "adapter" / "adapter_model.safetensors"
    weights = load_file(str(path))
    half = [name for name in sorted(weights) if "lora_B" in name][::2]
    save_file({n: w * (n not in half) for n, w in weights.items()}, str(path), {"format": "pt"})
    proofs = verified(only=["effect", "identity"])
    assert failed(proofs) == ["identity"]
    assert f"zero in {len(half)} of its 14 layers" in proofs["effect"]["notes"][0]


def test_another_version_is_a_note(town: Path, verified: Verify) -> None:
    edit(town / "run" / "manifest.json", lambda content: content["versions"].update(torch="1.0"))
    [note] = verified(only=["identity"])["identity"]["notes"]
    assert note.startswith("torch was 1.0, is ")


def test_a_run_of_before_there_were_hashes_is_told(town: Path, verified: Verify) -> None:
    edit(town / "run" / "manifest.json", lambda content: content.pop("trained"))
    proofs = verified(only=["template", "identity"])
    assert failed(proofs) == [] and "kept no hashes" in proofs["identity"]["notes"][0]


# ---- what a person sees ----------------------------------------------------------------------------------------------


def test_the_message_names_what_failed_and_what_to_do(town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(town / "run" / "adapter" / "generation_config.json", lambda content: content.update(eos_token_id=[0]))
    assert main(["verify", "run", "--only", "stop", "--only", "identity"]) == 2
    said = capsys.readouterr()
    assert "FAIL" in said.out and "lacks the stop id 2" in said.out and "do:" in said.out
    assert max(map(len, said.out.split("\n stop ")[0].splitlines())) <= 80
    assert "1 of 2 proofs failed: stop" in said.err and "tunewright verify run --only stop" in said.err
