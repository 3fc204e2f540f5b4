"""What may stand after ``base:``, and what is said when it cannot be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tunewright.errors import BaseModelError, MissingExtra, ResourceError
from tunewright.model.source import fetch

pytestmark = pytest.mark.usefixtures("cache")


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def refused(name: str | Path) -> BaseModelError:
    with pytest.raises(BaseModelError) as caught:
        fetch(str(name), progress=False)
    assert caught.value.exit_code == 2
    return caught.value


def test_folder_is_used_where_it_lies(tiny_base: Path) -> None:
    base = fetch(str(tiny_base))
    assert (base.source, base.folder) == ("folder", tiny_base)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(base.files)


def test_hash_changes_with_template_and_not_with_readme(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    first = fetch(str(folder)).sha256
    assert first == fetch(str(tiny_base)).sha256
    (folder / "README.md").write_text("hello")
    assert fetch(str(folder)).sha256 == first
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert fetch(str(folder)).sha256 != first


def test_same_size_change_of_weights_changes_the_hash(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    first = fetch(str(folder)).sha256
    flip_byte(folder / "model.safetensors")
    assert fetch(str(folder)).sha256 != first


def test_unknown_name_gives_the_nearest() -> None:
    error = refused("smolm2-135-instruct")
    assert "smollm2-135m-instruct" in (error.do or "")


def test_empty_name_is_no_folder() -> None:
    assert "there is no base ''" in refused("").what


def test_unknown_path_says_there_is_no_folder() -> None:
    assert "folder" in (refused("./nowhere/at/all").do or "")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_folder_lacking_a_file_names_it(tiny_base: Path, tmp_path: Path, file: str) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    (folder / file).unlink()
    assert file in refused(folder).what


def test_missing_shard_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors" in refused(folder).what


def test_weights_cut_off_are_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    error = refused(folder)
    assert "model.safetensors is damaged" in error.what and "promises" in error.what


def test_broken_config_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(folder).what


def test_adapter_given_as_base_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "adapter" in (refused(tmp_path).do or "")


def test_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK not a model")
    assert "no GGUF file" in refused(tmp_path / "x.gguf").what


def test_gguf_cut_off_leaves_nothing_half_made(tiny_gguf: Path, tmp_path: Path, cache: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(tiny_gguf.read_bytes()[:20_000])
    assert "short.gguf" in refused(short).what
    assert not [p for p in (cache / "bases").iterdir() if not p.name.startswith(".")]


def test_hub_id_offline_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNEWRIGHT_OFFLINE", "1")
    assert "offline" in refused("nobody/nothing-at-all").what


@pytest.mark.skipif(bool(find_spec("modelscope")), reason="modelscope is installed here")
def test_modelscope_without_its_package_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"tunewright\[modelscope\]"):
        fetch("modelscope:Qwen/Qwen3-0.6B")


def test_gguf_is_converted_exactly_and_once(tiny_gguf: Path, tiny_base: Path) -> None:
    base = fetch(str(tiny_gguf))
    import torch
    from safetensors.torch import load_file as load_torch

    wanted = {k: v.to(torch.bfloat16) for k, v in load_torch(tiny_base / "model.safetensors").items()}
    got = load_torch(base.folder / "model.safetensors")
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    made = (base.folder / "model.safetensors").stat().st_mtime_ns
    again = fetch(str(tiny_gguf))
    assert again == base and (again.folder / "model.safetensors").stat().st_mtime_ns == made


def test_slow_tokenizer_gets_a_tokenizer_json(tiny_base: Path, tmp_path: Path) -> None:
    """GPT-2's two files, as older bases have them."""
    folder = copy(tiny_base, tmp_path / "old")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    base = fetch(str(folder))
    assert (base.folder / "tokenizer.json").exists() and not (folder / "tokenizer.json").exists()
    assert load_file(base.folder / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()


def test_fetching_costs_no_torch(tiny_base: Path) -> None:
    code = (
        "import sys; from tunewright.model.source import fetch; from tunewright.model.memory import describe; "
        f"describe(fetch({str(tiny_base)!r}).folder); "
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_full_disk_while_converting(tiny_gguf: Path, cache: Path, run_limited) -> None:  # type: ignore[no-untyped-def]
    done = run_limited(f"from tunewright.model.source import fetch; fetch({str(tiny_gguf)!r})", 100_000)
    assert ResourceError.__name__ in done.stderr and "the disk is full" in done.stderr
    assert not [p for p in (cache / "bases").iterdir() if not p.name.endswith(".lock")]


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_weights_of_another_shape_are_seen(tiny_base: Path, tmp_path: Path) -> None:
    from tunewright.model.load import load

    folder = copy(tiny_base, tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"layers\.1\.mlp\.up_proj"):
        load(fetch(str(folder)), "fp32", "cpu")
