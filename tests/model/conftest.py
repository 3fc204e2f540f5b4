"""A tiny base in every form that a base can have: folder, GGUF file, wheel on a package index."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

import tunewright
from tunewright.model import source
from tunewright.model.catalog import Entry

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, and no index for pip."""
    for name in ("HF_HUB_OFFLINE", "TUNEWRIGHT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(tunewright.__path__[0]).parent))  # for processes that tests start
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_gguf(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_base`` as llama.cpp would store it: fp32, rotary halves interleaved."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny_base, path)
    return path


@pytest.fixture
def tiny_entry(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """The catalog holds one base, ``tiny``, and pip finds its wheel in a folder."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = write_wheel(index, {"tiny.gguf": tiny_gguf.read_bytes()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    entry = Entry(
        source="package", package="tiny-base-wheel", version="1.0", file="tiny_base_wheel/tiny.gguf",
        sha256=digest(tiny_gguf), wheel_sha256=digest(wheel), file_bytes=tiny_gguf.stat().st_size,
        size_bytes=wheel.stat().st_size, parameters=100_000, licence="Apache-2.0", languages=("en",), notes="",
    )  # fmt: skip
    put_into_catalog(monkeypatch, entry)
    return entry


@pytest.fixture
def tiny_folder_entry(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """As ``tiny_entry``, with the base's folder in the wheel instead of a GGUF file, among files nobody asked for."""
    index = tmp_path / "index"
    index.mkdir()
    inside = {f"model/{path.name}": path.read_bytes() for path in sorted(tiny_base.iterdir())}
    wheel = write_wheel(index, inside | {"model/README.md": b"# Tiny", "model/code.py": b"raise SystemExit"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    entry = Entry(
        source="package", package="tiny-base-wheel", version="1.0", folder="tiny_base_wheel/model",
        files={path.name: digest(path) for path in sorted(tiny_base.iterdir())}, wheel_sha256=digest(wheel),
        size_bytes=wheel.stat().st_size, parameters=100_000, licence="Apache-2.0", languages=("en",), notes="",
    )  # fmt: skip
    put_into_catalog(monkeypatch, entry)
    return entry


def put_into_catalog(monkeypatch: pytest.MonkeyPatch, entry: Entry) -> None:
    monkeypatch.setattr(source, "catalog", lambda: {"tiny": entry})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_wheel(folder: Path, inside: dict[str, bytes]) -> Path:
    """inside: content of each file, by its path below ``tiny_base_wheel/``."""
    path = folder / "tiny_base_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in inside.items():
            archive.writestr(f"tiny_base_wheel/{name}", content)
        info = "tiny_base_wheel-1.0.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny-base-wheel\nVersion: 1.0\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    return path


def write_gguf(folder: Path, path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _id in vocabulary])
    writer.add_token_types([3 if text in special else 1 for text, _id in vocabulary])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for name, weight in load_file(folder / "model.safetensors").items():
        writer.add_tensor(*_as_llama_cpp(name, weight.astype(np.float32), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _as_llama_cpp(name: str, weight: Any, config: dict[str, Any]) -> tuple[str, Any]:
    plain = name.removesuffix(".weight").removeprefix("model.")
    if plain == "embed_tokens":
        return "token_embd.weight", weight
    if plain == "norm":
        return "output_norm.weight", weight
    _layers, number, part = plain.split(".", 2)
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(part)
    if heads:
        rows, columns = weight.shape
        count = config[heads]
        weight = weight.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return f"blk.{number}.{NAMES[part]}.weight", np.ascontiguousarray(weight)


@pytest.fixture
def run_limited() -> Callable[..., Any]:
    """Runs Python code in a process whose files may not grow over a number of bytes: the kernel's own refusal, the
    nearest to a full disk that needs no rights."""
    import resource
    import subprocess
    import sys

    def run(code: str, limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip

    return run
