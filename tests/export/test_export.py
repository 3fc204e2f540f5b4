"""Each form of a chat run: what is in it, that it is compared, and that nothing is left where it does not hold."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.export.conftest import left_behind, needs_llama_cpp
from tests.tiny import environment, sha256

from tunewright import api, rundir
from tunewright.cli.main import main
from tunewright.errors import BaseModelError, ResourceError, RunError
from tunewright.export import compare, gguf_model, place
from tunewright.model import merge
from tunewright.model.source import Base

LLAMA_CPP = importlib.util.find_spec("llama_cpp") is not None
OWN = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def exported(form: str, **more: Any) -> Path:
    return api.Run.open("run").export(form, **more).folder


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "export.json").read_text()))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- what is in each form ----------------------------------------------------------------------------------------------


def test_an_adapter_is_the_runs_own_with_its_card(town: Path) -> None:
    folder = exported("adapter")
    assert folder == Path("run/export/adapter")
    assert files(folder) == {"adapter_config.json", "adapter_model.safetensors", "README.md", "export.json", *OWN}
    for name in (*OWN, "adapter_config.json", "adapter_model.safetensors"):
        assert (folder / name).read_bytes() == (town / "run" / "adapter" / name).read_bytes()
    told = record(folder)
    assert told["form"] == "adapter" and told["type"] is None and told["run"] == "run"
    assert told["ids"]["rows"] == 20 and told["ids"]["by_transformers"] == 40
    (numbers,) = told["comparisons"]
    assert numbers["reader"] == "PEFT" and numbers["largest_difference"] == 0 and numbers["equal_answers"] == 4
    manifest = json.loads((town / "run" / "manifest.json").read_text())
    assert told["base"]["sha256"] == manifest["base"]["sha256"] and told["recipe_sha256"] == manifest["recipe_sha256"]
    assert told["files"]["README.md"] and told["files"].keys() == files(folder) - {"export.json"}


@pytest.mark.usefixtures("town")
def test_a_merged_model_has_template_generation_config_and_every_stop_id() -> None:
    folder = exported("merged", out="here/merged")
    assert folder == Path("here/merged") and left_behind(Path("run")) == []
    assert files(folder) == {"config.json", "model.safetensors", "README.md", "export.json", *OWN}
    for name in OWN:
        assert (folder / name).read_bytes() == (Path("run/adapter") / name).read_bytes()
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2]
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    (numbers,) = record(folder)["comparisons"]
    assert numbers["reader"] == "transformers" and numbers["top_1_agreement"] == 1 and numbers["equal_answers"] == 4
    assert numbers["largest_difference"] < 1e-4 * numbers["largest_logit"]


@pytest.mark.usefixtures("town")
@pytest.mark.parametrize("kind", list(gguf_model.PACKINGS))
def test_a_gguf_file_holds_ids_stops_and_template(kind: str) -> None:
    folder = exported("gguf", type=kind)
    assert files(folder) == {f"run-{kind}.gguf", "README.md", "export.json"}
    reader = gguf.GGUFReader(folder / f"run-{kind}.gguf")

    def value(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    assert value("general.architecture") == "llama" and value("general.name") == "run"
    assert value("tokenizer.ggml.model") == "gpt2" and value("tokenizer.ggml.pre") == "gpt-2"
    assert value("tokenizer.ggml.eos_token_id") == value("tokenizer.ggml.eot_token_id") == 2
    assert value("tokenizer.ggml.bos_token_id") == 1 and value("tokenizer.ggml.padding_token_id") == 0
    assert value("tokenizer.ggml.add_bos_token") is False
    assert value("tokenizer.chat_template") == Path("run/adapter/chat_template.jinja").read_text()
    told = record(folder)
    readers = [numbers["reader"].split()[0] for numbers in told["comparisons"]]
    assert readers == ["transformers", "llama.cpp"] if LLAMA_CPP else ["transformers"]
    assert told["ids"]["texts"] >= 12 and told["type"] == kind
    if not LLAMA_CPP:
        assert told["notes"] == [
            "llama.cpp did not check this file; the extra llama-cpp brings it: pip install 'tunewright[llama-cpp]'"
        ]


@needs_llama_cpp
@pytest.mark.usefixtures("town")
def test_llama_cpp_answers_as_the_run_does() -> None:
    (_transformers, numbers) = record(exported("gguf", type="f16"))["comparisons"]
    assert numbers["top_1_agreement"] == 1.0 and numbers["equal_answers"] == numbers["answers"] == 4
    assert numbers["divergence"] < 1e-4


@pytest.mark.usefixtures("town")
def test_ollama_has_the_file_the_template_the_stops_and_the_system_message() -> None:
    folder = exported("ollama")
    assert files(folder) == {"run-q8_0.gguf", "Modelfile", "README.md", "export.json"}
    text = (folder / "Modelfile").read_text()
    assert "\nFROM ./run-q8_0.gguf\n" in text and 'PARAMETER stop "<|im_end|>"\n' in text
    assert 'SYSTEM """Be brief."""\n' in text and "temperature" not in text
    assert 'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n' in text


@pytest.mark.usefixtures("town")
def test_a_card_says_what_it_is_and_no_path_of_this_machine() -> None:
    folder = exported("card")
    assert files(folder) == {"README.md", "export.json"}
    text = (folder / "README.md").read_text()
    front = text.split("---\n")[1]
    assert "base_model: base\n" in front and "- tunewright\n" in front and "datasets:\n- town\n" in front
    for title in ("How to use it", "Before and after", "Data", "Training", "Limits"):
        assert f"\n## {title}\n" in text
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    assert evaluation["verdict"] in text and "| loss (lower is better) |" in text and "general questions" in text
    assert "`town.jsonl`: 24 rows" in text and "20 to train on, 4 held out" in text
    assert "| `train.learning_rate` | 0.01 |" in text and "4 held-out rows are few" in text
    assert str(Path.cwd()) not in text and "/tmp" not in text and str(Path.home()) not in text


# -- a comparison that does not hold -----------------------------------------------------------------------------------


def test_a_merge_that_adds_twice_is_not_kept(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(model: Any) -> Any:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.mul_(2)
        return merge.merged(model)

    monkeypatch.setattr("tunewright.export.run.merged", twice)
    with pytest.raises(RunError, match=r"not the run, as transformers reads it: .* of what training changed"):
        exported("merged")
    assert left_behind(town / "run") == []


def test_heads_in_the_wrong_order_are_not_kept(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_model, "_turned", lambda weight, _heads: weight)
    with pytest.raises(RunError, match="the export is not the run"):
        exported("gguf", type="f16")
    assert left_behind(town / "run") == []


def test_ids_that_another_software_writes_otherwise_are_shown(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright.export.splitting.name_of", lambda _tokenizer, _where: "qwen2")
    with pytest.raises(RunError) as error:
        exported("gguf", type="f16")
    assert "makes other ids than the run near '" in error.value.what and "is [" in error.value.what
    assert left_behind(town / "run") == []


def test_no_number_is_no_small_difference() -> None:
    then = compare.Reference(torch.eye(4), torch.zeros(4, 4), [])
    fp32, four = compare.allowed(None, "fp32"), compare.allowed("q4_0", "fp32")
    compare.compared("x", then, torch.eye(4), [], fp32, "run")
    for found, limit, said in (
        (torch.full((4, 4), torch.nan), fp32, "nan% of what training changed is lost"),
        (torch.zeros(4, 4), four, "100% of what training changed is lost"),
        (torch.eye(4) * 0.55 + torch.eye(4).flip(0) * 0.6, replace(four, lost=9), "first choice is another at 100"),
        (torch.eye(4) + 3 * torch.eye(4)[:1], replace(four, lost=9), "nats a token away"),
        (torch.eye(4) + 1e-3, fp32, "a logit differs by 0.001"),
    ):
        with pytest.raises(RunError, match=said):
            compare.compared("x", then, found, [], limit, "run")


# -- what is wrong before ----------------------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_another_base_is_refused(town: Path) -> None:
    weights = load_file(town / "base" / "model.safetensors")
    weights["model.norm.weight"] += 1e-3
    save_file(weights, town / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"not the one this run was trained on: model\.safetensors"):
        exported("merged")
    shutil.rmtree(town / "base")
    with pytest.raises(BaseModelError, match="the base cannot be read"):
        exported("adapter")
    assert left_behind(town / "run") == []


def test_a_changed_template_is_refused(town: Path) -> None:
    edit(town / "run/adapter/chat_template.jinja", "message['content'] +", "message['content'].upper() +")
    for form in ("adapter", "merged", "gguf", "ollama", "card"):
        with pytest.raises(RunError, match=r"adapter/chat_template\.jinja is not what the run wrote"):
            exported(form)
    assert left_behind(town / "run") == []


def test_rows_that_are_gone_cannot_be_compared_on(town: Path) -> None:
    (town / "town.jsonl").unlink()
    with pytest.raises(RunError, match="an export is compared with the run on the run's own rows"):
        exported("merged")
    assert (exported("card") / "README.md").exists()  # which compares nothing


def test_an_unfinished_run_is_refused(town: Path) -> None:
    rundir.RunDir(town / "run").set_status("training")
    with pytest.raises(RunError, match="nothing to export yet"):
        exported("card")


def test_what_is_asked_wrongly_is_said_with_what_would_do(town: Path) -> None:
    for arguments, said in (
        ({"to": "onnx"}, "there is no form 'onnx'"), ({"to": "merged", "type": "f16"}, "the form merged has no types"),
        ({"to": "gguf", "type": "q4_k_m"}, "there is no type 'q4_k_m'"),
    ):  # fmt: skip
        with pytest.raises(RunError) as error:
            api.Run.open("run").export(**arguments)
        assert said in error.value.what and error.value.do and error.value.command == "tunewright export --help"


def test_a_folder_of_somebody_else_is_left_alone(town: Path) -> None:
    foreign = town / "foreign"
    foreign.mkdir(exist_ok=True)
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is no export of ours"):
        exported("card", out=foreign)
    assert files(foreign) == {"thesis.txt"}
    made = api.Run.open("run").export("card", out=foreign, force=True)
    assert files(foreign) == {"README.md", "export.json"} and made.lines == [f"what stood in {foreign} was replaced"]
    shutil.rmtree(foreign)
    for place_of_more in (town, town / "run"):
        with pytest.raises(RunError, match="holds more than an export"):
            exported("card", out=place_of_more, force=True)
    with pytest.raises(RunError, match="is no folder"):
        exported("card", out=town / "town.jsonl", force=True)


def hashes_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("inside", ["adapter", "checkpoints", "export", "new", "adapter/new", "../run/adapter"])
def test_no_part_of_a_run_is_replaced(inside: str, town: Path) -> None:
    (town / "run" / "export").mkdir(exist_ok=True)
    before = hashes_below(town / "run")
    for out in (f"run/{inside}", town / "run" / inside):
        with pytest.raises(RunError, match="belongs to the run") as error:
            exported("card", out=out, force=True)
        assert "export/" in str(error.value.do)
    assert hashes_below(town / "run") == before


def test_no_part_of_a_run_is_reached_by_another_way(town: Path) -> None:
    (town / "run" / "export").mkdir(exist_ok=True)
    (town / "way").symlink_to("run")
    shutil.copytree("run", "other")
    try:
        for out in ("way/adapter", "way/new", "other/adapter", "other"):
            with pytest.raises(RunError, match="belongs to the run"):
                exported("card", out=out, force=True)
        assert files(exported("card", out="way/export/mine")) == {"README.md", "export.json"}
    finally:
        (town / "way").unlink()
        shutil.rmtree("other")


def test_the_base_is_not_replaced(town: Path) -> None:
    """Not even one that is an export of ours itself, which needs no force."""
    before = hashes_below(town / "base")
    for out in ("base", "base/new"):
        with pytest.raises(RunError, match="the base of this run"):
            exported("card", out=out, force=True)
    assert hashes_below(town / "base") == before
    rundir.write_json(town / "base" / place.RECORD, {"tunewright": "1", "form": "merged"})
    with pytest.raises(RunError, match="the base of this run"):
        exported("card", out="base")


def test_where_the_base_is_a_file_its_folder_stays(town: Path) -> None:
    (town / "models").mkdir(exist_ok=True)
    file = town / "models" / "mine.gguf"
    file.write_bytes(b"GGUF")
    run, base = rundir.RunDir("run"), Base(str(file), "gguf", town / "cache", "", {})
    with pytest.raises(RunError, match="the base of this run"):
        place.chosen(run, base, "card", "models", force=True)
    assert place.chosen(run, base, "card", "models/new", force=False) == Path("models/new")
    lent_base = Base("mine", "package", town / "models", "", {})  # which lies in the cache, made anew if it is gone
    assert place.chosen(run, lent_base, "card", "models", force=True) == Path("models")
    shutil.rmtree(town / "models")


def test_a_run_that_lies_in_its_base_has_a_place_for_exports(town: Path) -> None:
    run, base = rundir.RunDir("run"), Base(str(town), "folder", town, "", {})
    assert place.chosen(run, base, "card", None, force=False) == Path("run/export/card")


def test_an_export_that_is_the_base_of_a_later_run_stays_while_that_one_is_exported(town: Path) -> None:
    folder = exported("card", out=town / "run" / "export" / "base")
    shutil.copytree("run", "later")
    later, base = rundir.RunDir("later"), Base(str(folder), "folder", folder, "", {})
    for out in (folder, folder / "new"):
        with pytest.raises(RunError, match="the base of this run"):
            place.chosen(later, base, "card", out, force=True)
    shutil.rmtree("later")


@pytest.mark.usefixtures("town")
def test_an_earlier_export_is_replaced_and_that_is_said() -> None:
    exported("card")
    Path("run/export/card/old").touch()
    made = api.Run.open("run").export("card")
    assert files(made.folder) == {"README.md", "export.json"}
    assert made.lines == ["an earlier export in run/export/card was replaced"]
    assert {path.name for path in Path("run/export").iterdir()} == {"card"}


def test_a_folder_that_may_not_be_written_to(town: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write") as error:
        exported("card", out=town / "town.jsonl" / "inside")
    assert "--out" in str(error.value.do)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 250, f"{'n' * 300}/inside", "a\0b", "a\ud800b", "circle/new"])
def test_a_name_that_no_disk_takes(name: str, town: Path) -> None:
    """Too long by itself, or with what an unfinished export has before and behind it; no name at all; or no place."""
    (town / "circle").symlink_to("circle")
    before = files(town)
    with pytest.raises(ResourceError, match="cannot write") as error:
        exported("card", out=name)
    assert "--out" in str(error.value.do) and files(town) == before
    (town / "circle").unlink()


def test_no_room_is_known_before_anything_is_loaded(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(town)._replace(free=400_000)
    monkeypatch.setattr(place.shutil, "disk_usage", lambda _path: free)
    monkeypatch.setattr("tunewright.verify.subject.open_run", lambda *_run: pytest.fail("a model was loaded"))
    with pytest.raises(ResourceError, match=r"there is no room for this export: it takes .*, and .* are free"):
        exported("merged")


def test_a_full_disk_leaves_nothing(town: Path) -> None:
    exported("card", out="kept/gguf")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        for form in ("merged", "gguf"):
            with pytest.raises(ResourceError, match="the disk is full"):
                exported(form, out="kept/gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert files(Path("kept")) >= {"gguf"} and not [name for name in files(Path("kept")) if name.startswith(".")]
    assert record(Path("kept/gguf"))["form"] == "card"  # what stood there stands there still


def test_an_interruption_leaves_nothing(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunewright.export.run.compare_opened", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported("merged")
    assert left_behind(town / "run") == []


def test_two_exports_to_one_place_are_never_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with place.filling(folder) as one:
        (one / "one").touch()
        with pytest.raises(RunError, match="another export to this folder") as error, place.filling(folder):
            pytest.fail("both were let in")
        assert "wait for it" in str(error.value.do) and files(one) == {"one"}
    assert files(folder) == {"one"}
    with place.filling(folder) as other:  # it is free again
        (other / "other").touch()
    assert files(folder) == {"other"} and files(folder.parent) == {"out"}


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".out.unfinished"
    (left / "folder").mkdir(parents=True)
    (left / "half").touch()
    (left / "link").symlink_to(tmp_path)
    with place.filling(tmp_path / "out") as unfinished:
        assert unfinished == left and files(left) == set()
    assert files(tmp_path) == {"out"}


def test_a_link_in_the_place_of_an_unfinished_export_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    (tmp_path / ".out.unfinished").symlink_to("thesis")
    with pytest.raises(ResourceError, match="cannot write"), place.filling(tmp_path / "out"):
        pytest.fail("it was followed")
    assert files(tmp_path / "thesis") == {"text"}


@pytest.mark.usefixtures("town")
def test_a_disk_that_knows_no_locks_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_words: Any) -> None:
        raise OSError(errno.EBADF, "bad file descriptor")  # as NFS says it of a folder

    monkeypatch.setattr(place.fcntl, "flock", unknown)
    assert files(exported("card")) == {"README.md", "export.json"}


ENDED = """
import os, signal, sys
from tunewright.cli.main import main
from tunewright.export import run
number = signal.Signals[sys.argv[1]]
signal.signal(number, getattr(signal, sys.argv[2]))
real = run.card.write
def written(*words):
    os.kill(os.getpid(), number)
    return real(*words)
run.card.write = written
sys.exit(main(["export", "run", "--to", "card", "--out", "new/card"]))
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_ended_leaves_nothing(number: str, town: Path) -> None:
    def ended(before: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", ENDED, number, before], env=environment(town / "cache"), capture_output=True,
            text=True, timeout=100,
        )  # fmt: skip

    done = ended("SIG_DFL")
    assert done.returncode == 130 and "interrupted" in done.stderr and not Path("new").exists()
    assert ended("SIG_IGN").returncode == 0 and files(Path("new")) == {"card"}  # as nohup asks it
    shutil.rmtree("new")


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["out", ".out.unfinished"])
def test_what_was_there_comes_back_if_the_last_step_fails(
    fault: BaseException, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames, or at the second."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").touch()
    real = os.replace

    def failing(one: Path, other: Path) -> None:
        if Path(one).name != ".out.unfinished":
            real(one, other)
        if Path(one).name == step:
            raise fault

    monkeypatch.setattr(place.os, "replace", failing)
    said = ResourceError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(said), place.filling(folder) as unfinished:
        (unfinished / "new").touch()
    assert files(tmp_path) == {"out"} and files(folder) == {"old"}


# -- the command line --------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    code: int
    out: str
    err: str


def tunewright(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    capsys.readouterr()
    code = main(list(words))
    return Said(code, *capsys.readouterr())


@pytest.mark.usefixtures("town")
def test_the_verb_says_what_was_compared_and_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    said = tunewright(capsys, "export", "run", "--to", "adapter", "--out", "there")
    assert said.code == 0 and said.out.splitlines()[-1] == "Exported to there"
    assert said.out.startswith("PEFT: largest difference 0 of ") and "4 of 4 texts equal" in said.out
    said = tunewright(capsys, "export", "run", "--to", "card", "--out", "there", "--json")
    told = json.loads(said.out)
    assert said.code == 0 and told["form"] == "card" and told["folder"] == "there"


@pytest.mark.usefixtures("town")
def test_errors_of_the_verb_are_messages(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["export", "run"], ["export", "nothing", "--to", "card"], ["export", "run", "--to", "zip"]):
        said = tunewright(capsys, *words)
        assert said.code == 2 and said.err.startswith("error: ") and "Traceback" not in said.err
