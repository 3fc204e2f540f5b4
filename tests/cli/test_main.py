"""The frame of the command line: help, exit codes, and how every kind of error ends."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import tunewright
from tunewright.cli import main as frame
from tunewright.cli.main import VERBS, app, main, set_log
from tunewright.errors import DataError

ROOT = Path(__file__).parents[2]
NAMES = [name for verbs in VERBS.values() for name in verbs]


def commands(name: str) -> list[list[str]]:
    """The verb, and every verb of it."""
    context = click.Context(app)
    command = app.get_command(context, name)
    inner = command.list_commands(context) if isinstance(command, click.Group) else []
    return [[name], *([name, verb] for verb in inner)]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BaseException], list[str]]:
    """A verb that raises what it is given; the cache folder is a temporary one."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))

    def make(error: BaseException) -> list[str]:
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        def planted(as_json: bool) -> None:
            raise error

        real = frame._Verbs.get_command
        monkeypatch.setattr(
            frame._Verbs, "get_command", lambda self, ctx, name: planted if name == "planted" else real(self, ctx, name)
        )
        return ["planted"]

    return make


# ---- help ------------------------------------------------------------------------------------------------------


def run(*args: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "tunewright", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tunewright.cli.main import main\nmain(['--help'])\n"
        "heavy = ('torch', 'transformers', 'peft', 'pydantic', 'rich', 'numpy', 'yaml')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    assert run(code=code).stderr.strip() == "[]"


def test_help_answers_in_under_half_a_second() -> None:
    def once() -> float:
        start = time.perf_counter()
        assert run("--help").returncode == 0
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.5


def test_help_of_a_verb_that_checks_data_imports_no_torch() -> None:
    code = (
        "import sys\nfrom tunewright.cli.main import main\nmain(['data', 'check', '--help'])\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules], file=sys.stderr)"
    )
    assert run(code=code).stderr.strip() == "[]"


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.rstrip().splitlines()[-1].strip().startswith("Next: tunewright ")
    assert all(f"  {name} " in out for name in NAMES)
    assert max(map(len, out.splitlines())) <= 80


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"tunewright {tunewright.__version__}"


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_and_its_verbs_end_their_help_with_what_to_type_next(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands(name):
        assert main([*words, "--help"]) == 0
        out = capsys.readouterr().out
        assert re.fullmatch(r"Next: .*tunewright .*", out.rstrip().split("\n\n")[-1].strip(), re.S), words


# ---- errors ----------------------------------------------------------------------------------------------------


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    err = capsys.readouterr().err
    assert "did you mean `train`?" in err
    assert err.splitlines()[-1] == "  type:  tunewright --help"


def test_usage_error_ends_with_the_help_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "explain", "--nonsense"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "--nonsense" in err
    assert err.splitlines()[-1] == "  type:  tunewright recipe explain --help"


def test_input_error_is_its_message_and_exit_code_2(
    verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    error = DataError("broken JSON", where="x.jsonl:3", do="mend the line", command="tunewright data check x.jsonl")
    assert main(verb(error)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: broken JSON", "  where: x.jsonl:3", "  do:    mend the line", "  type:  tunewright data check x.jsonl",
    ]  # fmt: skip


def test_input_error_as_json(verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb(DataError("broken JSON", where="x.jsonl:3")), "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed["error"] == "broken JSON" and printed["where"] == "x.jsonl:3"


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota")])
def test_lack_of_memory_or_disk_is_no_fault_of_ours(
    error: BaseException, verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(verb(error)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and "  type:  tunewright" in err


def test_our_fault_is_one_message_and_a_traceback_in_a_file(
    verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(verb(ZeroDivisionError("planted"))) == 1
    err = capsys.readouterr().err
    log = tmp_path / "cache" / "crash.log"
    assert "Traceback" not in err and str(log) in err and "ZeroDivisionError: planted" in err
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_our_fault_in_a_run_goes_to_the_log_of_the_run(
    monkeypatch: pytest.MonkeyPatch, verb: Callable[[BaseException], list[str]], tmp_path: Path
) -> None:
    words = verb(ZeroDivisionError("planted"))

    def planted(self: object, ctx: object, name: str) -> click.Command:
        @click.command()
        def command() -> None:
            set_log(tmp_path / "log.txt")
            raise ZeroDivisionError("planted")

        return command

    monkeypatch.setattr(frame._Verbs, "get_command", planted)
    assert main(words) == 1
    assert "ZeroDivisionError: planted" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_our_fault_is_shown_where_no_file_can_be_written(
    verb: Callable[[BaseException], list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    words = verb(ZeroDivisionError("planted"))
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "file" / "below"))
    assert main(words) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interruption_is_130(verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verb(KeyboardInterrupt())) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_reader_that_goes_away_is_met_with_silence() -> None:
    code = "from tunewright.cli.main import main; import sys; sys.exit(main(['recipe', 'explain']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert err == b""


# ---- paths that no system takes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EISDIR])
def test_a_path_that_the_system_refuses_is_named(
    number: int, verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(verb(OSError(number, os.strerror(number), "some/path"))) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: this path cannot be used: {os.strerror(number)}", "  where: some/path",
        "  do:    give another path, or the right to use this one", "  type:  tunewright --help",
    ]  # fmt: skip
    assert not (tmp_path / "cache" / "crash.log").exists()


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file", "x"), OSError(errno.ENOTDIR, "x")])
def test_other_errors_of_the_system_are_our_fault(
    error: OSError, verb: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(verb(error)) == 1
    assert "fault of Tunewright's own" in capsys.readouterr().err


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    ["data check {}", "data show {}", "data stats {}", "data check town.jsonl --fix {}", "verify {}", "report {}",
     "resume {}", "rerun {}", "chat {}", "predict {} town.jsonl", "export {} --to card", "compare {} {}",
     "evaluate {}", "serve {}", "new identity --out {}", "train town.jsonl --out {}",
     "data check town.jsonl --base {}", "data check town.jsonl data.validation={}", "report run --out {}"],
)  # fmt: skip
@pytest.mark.parametrize("path", [LONG, f"below/{LONG}.jsonl", "a\0b"])
def test_a_path_that_is_too_long_or_holds_a_nul(
    words: str, path: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    rows = "".join(json.dumps({"prompt": f"What is {n}?", "answer": f"{n} is a number."}) + "\n" for n in range(9))
    (tmp_path / "town.jsonl").write_text(rows)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("task: chat\n")
    assert main([word.replace("{}", path) for word in words.split()]) == 2
    said = capsys.readouterr().err
    assert "  type:  tunewright" in said and "fault of Tunewright's own" not in said
    assert not (tmp_path / "cache" / "crash.log").exists()
