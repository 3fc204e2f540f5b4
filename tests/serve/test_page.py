"""The page at ``/`` in a real browser: models, base and tuned side by side, the lines that call them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys as Press
from selenium.webdriver.support.ui import WebDriverWait
from tests.serve.conftest import Server

from tunewright.serve import keys
from tunewright.serve.keys import Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs a browser: apt install chromium chromium-driver"
    ),
]  # fmt: skip
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,1500", "--lang=en",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


def seen(browser: Any, css: str) -> list[Any]:
    return [element for element in browser.find_elements(By.CSS_SELECTOR, css) if element.is_displayed()]


def wait(browser: Any, ready: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, 30).until(lambda _driver: ready())


def choose(browser: Any, name: str) -> None:
    [button] = [one for one in seen(browser, "#models button") if one.find_element(By.TAG_NAME, "b").text == name]
    button.click()


def ask(browser: Any, question: str) -> dict[str, str]:
    """What each model that was asked answered, by its heading."""
    browser.find_element(By.ID, "question").send_keys(question, Press.ENTER)
    turn = wait(browser, lambda: seen(browser, ".turn"))[-1]
    wait(browser, lambda: browser.find_element(By.ID, "send").is_enabled())
    answers = turn.find_elements(By.CSS_SELECTOR, ".answer")
    return {one.find_element(By.TAG_NAME, "h3").text: one.find_elements(By.TAG_NAME, "p")[-1].text for one in answers}


def test_models_answers_side_by_side_and_snippets(
    server: Server, browser: Any, tiny_run: Path, label_run: Path
) -> None:
    browser.get(server.root)
    wait(browser, lambda: seen(browser, "#models button"))
    names = [element.text for element in seen(browser, "#models b")]
    assert names == [model["id"] for model in server.models]

    choose(browser, tiny_run.name)
    answers = ask(browser, "What is at the harbour?")
    base = next(model["base"] for model in server.models if model["id"] == tiny_run.name)
    assert set(answers) == {tiny_run.name, f"base: {base}"}
    with server.client() as client:
        for heading, shown in answers.items():
            said = client.chat.completions.create(
                model=heading.removeprefix("base: "), temperature=0, max_tokens=512,
                messages=[{"role": "user", "content": "What is at the harbour?"}],
            )  # fmt: skip
            assert shown == (said.choices[0].message.content or "").strip()

    choose(browser, label_run.name)
    assert not seen(browser, "#talk")  # it answers nothing
    assert "/v1/classify" in browser.find_element(By.ID, "snippet").text
    choose(browser, tiny_run.name)
    words = shlex.split(browser.find_element(By.ID, "snippet").text.replace("\\\n", ""))
    done = subprocess.run(["curl", "-s", *words[1:]], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    seen(browser, "[data-tab=python]")[0].click()
    code = browser.find_element(By.ID, "snippet").text
    compile(code, "snippet", "exec")
    assert tiny_run.name in code
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_markup_in_an_answer_or_a_name_stays_text(server: Server, browser: Any, tiny_run: Path) -> None:
    browser.get(server.root)
    wait(browser, lambda: seen(browser, "#models button"))
    choose(browser, tiny_run.name)
    ask(browser, "<img src=x onerror=\"document.title='taken'\"><b>bold</b>")
    assert "onerror" in seen(browser, ".asked")[0].text
    assert not browser.find_elements(By.CSS_SELECTOR, ".turn img, .turn b")
    assert "Tunewright" in browser.title


def test_a_server_with_keys_asks_for_one_and_says_when_it_is_wrong(house: Any, browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secret = keys.create(file, "me")
    opened = house(keys=Keys(file, ()))
    browser.get(opened.root)
    wait(browser, lambda: seen(browser, "#key"))
    assert not seen(browser, "#models button")  # nothing is shown without
    seen(browser, "#key")[0].send_keys("sk-wrong", Press.ENTER)
    wait(browser, lambda: "does not know this key" in browser.find_element(By.ID, "problem").text)
    box = seen(browser, "#key")[0]
    box.clear()
    box.send_keys(secret, Press.ENTER)
    wait(browser, lambda: seen(browser, "#models button"))
    assert secret not in browser.find_element(By.ID, "snippet").text  # the variable's name stands there instead
    assert "TUNEWRIGHT_KEY" in browser.find_element(By.ID, "snippet").text
