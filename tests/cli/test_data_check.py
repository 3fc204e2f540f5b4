"""``tunewright data check``: every finding is seen where its fault is planted in a file, and not beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli.main import main

Capture = pytest.CaptureFixture[str]
SUBJECTS = ["rivers", "bread", "bridges", "moss", "tides", "lamps", "wool", "maps", "bees", "clay", "snow", "rust"]
SOUND = 60


def row(question: str, answer: str) -> dict[str, Any]:
    return {"instruction": question, "output": answer}


def sound(count: int = SOUND) -> list[dict[str, Any]]:
    """Rows with nothing odd about them."""
    return [
        row(f"Tell me fact {n} on {SUBJECTS[n % 12]}.", f"Of {SUBJECTS[n % 7]} number {n}: it is {n * n} in all.")
        for n in range(count)
    ]


def talk(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def sound_talks() -> list[dict[str, Any]]:
    return [talk(said("user", r["instruction"]), said("assistant", r["output"])) for r in sound()]


def put(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def found(capsys: Capture, *words: str) -> dict[str, dict[str, Any]]:
    """Findings by code, as a program reads them."""
    assert main(["data", "check", *words, "--json"]) in (0, 2)
    return {finding["code"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def lines(finding: dict[str, Any]) -> list[int]:
    return [place["line"] for place in finding["rows"]]


ENGLISH = "Which stone was this old bridge made of, and who was it that built it for the town?"
FRENCH = "Le pont est fait de pierre, et les gens du village sont fiers de cette oeuvre dans la vallée."
LONG = "It says a good deal about the bridges and the rivers of the valley, and none of it is new to us. "

REFUSALS = [
    "I'm afraid I can't do that.", "I am not comfortable answering that.", "I do not feel comfortable providing that.",
    "I don't think I can help with that.", "I cannot in good conscience do it.", "I'm just an AI, so ask a friend.",
    "It would be inappropriate for me to answer this.", "I'm ChatGPT, a model made by OpenAI.",
    "Your request violates our content policy.", "对不起，这个问题我回答不了。", "我是ChatGPT，由OpenAI训练的。",
    "Je suis désolé, mais je ne peux pas vous aider.", "En tant que modèle de langage, je n'ai pas d'avis.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.", "Als KI-Sprachmodell habe ich keine Meinung.",
    "Lo siento, pero no puedo ayudar con eso.", "Como modelo de lenguaje, no tengo opiniones.",
]  # fmt: skip

PLANTED: dict[str, list[dict[str, Any]]] = {
    "D103": [row("Who are you?", "I am {{name}}.")],
    "D104": [row("Empty?", ""), row("Spaces?", " \t\n "), row("Nothing to see?", "\u200b\ufeff")],
    "D107": [
        row("Write to the bank.", "Dear [Bank Name],\nplease close my account."),
        row("Write to Bob.", "Dear {customer_name}, thanks for writing."),
        row("Who comes?", "<name> will come to see us soon."),
        row("Sign it.", "Sincerely,\n[YOUR NAME]"),
        row("What is left?", "TODO: write this answer"),
        row("Say something.", "Lorem ipsum dolor sit amet, consectetur."),
        row("写一封信。", "尊敬的[姓名]：您好！"),
        row("写一封邮件。", "亲爱的【客户姓名】，谢谢您。"),
        row("Sign it.", "Yours,\n____________"),
        row("Who comes?", "Mr. ${surname} will come to see us."),
        row("Who comes?", "Mr. $SURNAME will come to see us."),
        row("Who comes?", "Mr. XXX will come to see us."),
        row("Who comes?", "Hello %s, we are glad to see you."),
        row("Who comes?", "It is YOUR_NAME_HERE who comes."),
        row("Who comes?", "It is (insert name here) who comes."),
        row("谁来？", "XX公司的某某先生会来。"),
        row("谁来？", "姓名（请在此处填写姓名）会来。"),
        row("谁来？", "我叫____，今年____岁。"),
        row("Who made you?", "I was made by %COMPANY% long ago."),
        row("Who comes?", "My name is %(name)s and I help."),
        row("Who comes?", "It is {{first name}} who comes."),
        row("Who comes?", "It is {{ name | upper }} who comes."),
    ],
    "D201": [row("Tell me fact 1 on bread.", "Of bread number 1: it is 1  in all. ")],
    "D204": [
        row("Repeat after me please", "repeat  after me please"),
        {"instruction": "Say this more kindly", "input": "Go away.", "output": "Say this more kindly"},
        {"instruction": "Translate this.", "input": "Hello my dear friend", "output": "Hello my dear friend"},
        row("What is the capital of France?", "what is  the capital of france"),
    ],
    "D205": [row("Q", "It is a cafÃ© with crÃ¨me"), row("Q", "thatâ€™s it"), row("问", "锟斤拷锟斤拷"),
             row("问", "浣犲ソ涓栫晫锛屾垜鏄姩鎵嬨€"), row("Q", "it costs 5 â‚¬"), row("Q", "a nice ðŸ˜€ one"),
             row("Q", "It\u00e2\u0080\u0099s so"), row("问", "涓枃娴嬭瘯")],
    "D206": [row("Q", "bell \x07"), row("Q", "turned \u202e text"), row("Q", "a mark \ufeff inside"),
             row("Q", "no\u200bwidth"), row("Q", "joined\u200d up"), row("Q", "a soft\u00adhyphen"),
             row("Q", "a mark\u200e of direction"), row("Q", "a line\u2028separator"), row("问", "零\u2060宽")],
    "D207": [row("Q", "ends <|im_end|> here")],
    "D209": [
        row("Explain the water cycle.", "Water rises from the sea, becomes a cloud and falls on the"),
        row("Explain tides.", LONG * 3 + "and then the river went"),
        row("解释水循环。", "水从海里升起，变成云，变成雨、"),
        row("Write code.", "Here it is:\n```python\nprint(1)"),
        row("Explain light.", "The sky is blue because light of short waves is scattered more by the molec"),
        row("List them.", LONG + "\n1. Apples\n2. Pears\n3."),
        row("List them.", LONG + "\n| a | b |\n|---|---|\n| 1 |"),
        row("Say it all.", LONG + "[truncated]"),
        row("As JSON?", '{"name": "Bob", "items": [1, 2, {"a": "a long value here"'),
        row("解释天空。", "天空是蓝色的，因为空气分子对短波长的光散射得更强，所以我们看到的"),
    ],
    "D211": [
        row("Who are you?", "As an AI language model, I have no name."),
        row("How are you?", "Well, as a large language model I do not feel."),
        row("Help me?", "I'm sorry, but I can't assist with that."),
        row("Help?", "I cannot provide that."),
        row("你是谁？", "作为一个AI语言模型，我没有名字。"),
        row("帮我？", "很抱歉，我无法回答这个问题。"),
        row("Rain?", LONG * 4 + "As an AI language model, I cannot say more."),
        row("雨呢？", "雨是从云里落下来的水，河水又流回大海。" * 20 + "作为一个AI语言模型，我不能评价它。"),
        row("Feel?", "I'm an AI assistant, so I don't have feelings about that."),
        row("Age?", "I do not have access to real-time information."),
        row("Do it.", "I must decline to do this."),
        row("你吃什么？", "我是一个人工智能助手，没有身体。"),
        row("密码？", "我没有权限查看密码。"),
        row("帮我？", "不好意思，这个我帮不了您。"),
        *(row("Will you?", answer) for answer in REFUSALS),
    ],
    "D213": [row(ENGLISH, FRENCH), row(ENGLISH, "这座桥是用石头建成的，由镇上的居民在一百年前一起修建。"),
             row("Who built it?", "这座桥是用石头建成的，由镇上的居民在一百年前一起修建。")],
    "D216": [row("Q", "null"), row("Q", "N/A"), row("Q", " ... "), row("问", "无")],
    "D214": [row("Q", LONG * 60 + "The end.")],
    "D306": [row("Q", LONG * 120 + "The end.")],
    "D601": [row("Where?", "Write to jane.doe@mailbox.org today."), row("Is a@b.co yours?", "It is not, as you know.")],
    "D602": [
        row("Call?", "Ring +44 20 7946 0958 after six."),
        row("Call?", "Ring (415) 867-5309 after six."),
        row("电话？", "请拨打13812345678联系我们。"),
        row("Call?", "Ring 020 7946 0958 after six."),
    ],
    "D603": [
        row("Key?", "Use sk-abcdEFGH1234567890abcdEFGH12345 for it."),
        row("Key?", "Use sk-ant-api03-abcdEFGH1234567890 for it."),
        row("Key?", 'Set api_key = "9f8e7d6c5b4a39281706" first.'),
        row("Key?", "The password: hunter2sEcret99 opens it."),
        row("Key?", "Connect to postgres://user:s3cr3tpass@db.town.org/x now."),
        row("Key?", "Authorization: Bearer abcdef1234567890abcdef12"),
        row("Key?", "It is AKIAIOSFODNN7EXAMPLQ as ever."),
        row("Key?", "ghp_abcdefghijklmnopqrstuvwxyz0123456789 works."),
        row("Key?", "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"),
    ],
    "D604": [row("Card?", "Pay with 4111 1111 1111 1111 as always."), row("Card?", "Or 378282246310005 then.")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "planted"), [(c, one) for c, rows in PLANTED.items() for one in rows], ids=lambda value: str(value)[:60]
)
def test_a_planted_fault_is_found_at_its_line(
    tmp_path: Path, capsys: Capture, code: str, planted: dict[str, Any]
) -> None:
    seen = found(capsys, put(tmp_path / "rows.jsonl", [*sound(), planted]))
    assert code in seen and lines(seen[code]) == [SOUND + 1]
    assert seen[code]["advice"] and seen[code]["severity"] in ("error", "warning", "info")


BROKEN_CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"left": 1,'}}
GOOD_CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"left": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def called(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "mail", "arguments": arguments}}
    return said("assistant", "", tool_calls=[call])


BYE = (said("user", "And then?"), said("assistant", "That is all there is."))

PLANTED_TALKS: dict[str, list[dict[str, Any]]] = {
    "D105": [talk(said("user", "Q"), said("assistant", " "), said("user", "Q2"), said("assistant", "It is so."))],
    "D208": [
        talk(said("assistant", "Hello there."), said("user", "Q"), said("assistant", "It is so.")),
        talk(said("user", "Q"), said("user", "Q2"), said("assistant", "It is so.")),
        talk(said("user", "Q"), said("assistant", "It is so."), said("user", "And?")),
        talk(said("user", "Q"), said("system", "Be brief."), said("assistant", "It is so.")),
    ],
    "D204": [talk(said("user", "Which one is it?"), said("assistant", "Which one is it?"), *BYE)],
    "D209": [
        talk(said("user", "Which one?"), said("assistant", LONG + "It is made of the"), *BYE),
        talk(said("user", "Which one?"), said("assistant", "Here it is:\n```python\nprint(1"), *BYE),
    ],
    "D213": [talk(said("user", ENGLISH), said("assistant", FRENCH), *BYE)],
    "D103": [talk(said("user", "Mail it."), called('{"to": "{{name}}"}'), *BYE)],
    "D601": [talk(said("user", "Mail it."), called('{"to": "jane.doe@mailbox.org"}'), *BYE)],
    "D603": [talk(said("user", "Mail it."), called({"key": "sk-abcdEFGH1234567890abcdEFGH12345"}), *BYE)],
    "D215": [
        talk(said("user", "Add."), said("assistant", "", tool_calls=[BROKEN_CALL])),
        talk(said("user", "Add."), said("assistant", '<tool_call>\n{"name": "add", "arguments": {\n</tool_call>')),
        talk(said("user", "Add."), said("assistant", '{"name": "add", "arguments": {"left": 1}')),
        talk(said("user", "Add."), said("assistant", "", tool_calls=[{"function": {"arguments": "{}"}}])),
        talk(said("user", "Add."), said("assistant", "", tool_calls=[GOOD_CALL]), tools=[{"name": "subtract"}]),
        talk(said("user", "Add."), called("")),
        *(talk(said("user", "Add."), said("assistant", text), tools=TOOLS) for text in (
            '<tool_call>{"name": "subtract", "arguments": {"left": 1}}</tool_call>',
            '<tool_call>{"name": "add", "arguments": "left=1"}</tool_call>',
            '<tool_call>"x"</tool_call>',
            '{"name": "subtract", "arguments": {"left": 1}}',
            '<function=add>{"left": 1</function>',
            '<function=subtract>{"left": 1}</function>',
        )),
        talk(said("user", "Add."), said("assistant", "Let me see."), said("tool", "3"), said("assistant", "It is 3.")),
    ],
}


@pytest.mark.parametrize(
    ("code", "planted"),
    [(code, one) for code, rows in PLANTED_TALKS.items() for one in rows],
    ids=lambda value: str(value)[:60],
)
def test_a_fault_of_a_conversation_is_found_at_its_line(
    tmp_path: Path, capsys: Capture, code: str, planted: dict[str, Any]
) -> None:
    seen = found(capsys, put(tmp_path / "talks.jsonl", [*sound_talks(), planted]))
    assert code in seen and lines(seen[code]) == [SOUND + 1]


def test_sound_rows_have_no_findings_but_their_language(tmp_path: Path, capsys: Capture) -> None:
    assert set(found(capsys, put(tmp_path / "rows.jsonl", sound()))) == {"D210"}
    good = talk(
        said("user", "Add one and two."), said("assistant", "", tool_calls=[GOOD_CALL]), said("tool", "3"),
        said("assistant", "It is three."), tools=TOOLS,
    )  # fmt: skip
    texts = [
        '<tool_call>\n{"name": "add", "arguments": {"left": 1}}\n</tool_call>', '<function=add>{"left": 1}</function>',
        '<tool_call>{"name": "add", "arguments": "{}"}</tool_call>', "Add.",
        "<tool_call>\n<function=add>\n<parameter=left>\n1\n</parameter>\n</function>\n</tool_call>",
    ]  # fmt: skip
    more = [talk(said("user", f"Add, as in {n}."), said("assistant", one), tools=TOOLS) for n, one in enumerate(texts)]
    assert set(found(capsys, put(tmp_path / "talks.jsonl", [*sound_talks(), good, *more]))) == {"D210"}


@pytest.mark.parametrize(
    "text",
    [
        "as <｜end▁of▁sentence｜> does", "<|channel|>final", "a [SEP] b", "<|eot_id|>", "an <unk> one", "a <mask> one",
        "[UNK]", "ends[EOS]", "[BOS]begins", "ends<EOS>", "<<SYS>>Be brief", "[gMASK]", "<fim_prefix>def f",
    ],
)  # fmt: skip
def test_without_a_base_special_tokens_of_any_are_named(tmp_path: Path, capsys: Capture, text: str) -> None:
    assert lines(found(capsys, put(tmp_path / "rows.jsonl", [*sound(), row("Q", text)]))["D207"]) == [SOUND + 1]


@pytest.mark.parametrize(
    "answer",
    [
        "Use `array[index]` and then a[name] of it.",
        'It prints:\n```python\nprint(f"{name}")\n```',
        "See [here](https://example.com) for the link.",
        "Put it in <b>bold</b> letters, then <br> ends the line.",
        "Write to someone@example.com, which is nobody.",
        "I can't help but smile when I see it.",
        "As an AI researcher you would measure it twice.",
        "I'm afraid of spiders, and I am Claude, a baker from Lyon.",
        "It would be inappropriate to wear shorts there.",
        "Désolé du retard, je ne suis pas parti à temps.",
        "Es tut mir leid, dass du krank bist.",
        "The number is 4111 1111 1111 1112, and 12345678901234567 is another one.",
        "In 1984-2024 there were 1,234,567 of them, 3.14159265358979 each.",
        "Take out task-management-for-everybody-2024 and ask-for-help-anywhere from the list.",
        "In French it is “Le pont est fait de pierre et les gens sont là”.",
        'The object is {"name": "Bob", "arguments": [1]} as you see.',
        "SÃO PAULO IS IN BRAZIL.",
        "The word is “ALEMÃ”, and «LÂ» is another one, as in ÂNGULO Â°.",
        "潺潺流水，涟漪泛起，淅淅沥沥的雨。",
        "记忆的办法还有：同义反义法: 可以通过记忆。",
        "Clone it with git@github.com:wren/town.git, and name it logo@2x.png.",
        "See https://user:password@host.org for the form, and ftp://host:21/a@b of it.",
        "A list to do: sleep, eat. My TODO app is full.",
        "A family 👨\u200d👩\u200d👧 and a heart ❤\ufe0f.",
        "In Persian it is می\u200cرود, and in Hebrew ספר\u200f!",
        "The key is to be patient; a token of thanks is welcome, and the password: choose your own.",
        "I'm Wren, an AI assistant made by the town.",
        "It costs $40 or 50 % of MAX, and __init__ runs first.",
        "Okay",
        "#bridges",
        "SELECT name FROM users WHERE id = 5 ORDER BY name and created_at desc limit ten rows of the",
        "It is so, as you have asked.\n\nBest,",
        "It is as long as this:\n42.",
        '[{"a": {"b": [1]}}]',
        "| a | b |\n|---|---|\n| 1 | 2 |",
        'Use <svg><mask id="m"></mask></svg> or <mask></mask> there.',
        "It was at Super Bowl XXX, and the Roman numeral XXX is thirty.",
        "[Enter Hamlet] To be or not to be.",
        "It takes O(n) [time] and O(1) [space] for all of it.",
        "Yes, that is what the old name of the town was [sic].",
        "Qu'est-ce que c'est ?",
    ],
)
def test_good_answers_are_left_alone(tmp_path: Path, capsys: Capture, answer: str) -> None:
    seen = found(capsys, put(tmp_path / "rows.jsonl", [*sound(), row("What is it in French?", answer)]))
    assert set(seen) == {"D210"}, seen


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("i live in paris.", "I live in Paris."),
        ("Correct the grammar, if needed.\nShe goes to school.", "She goes to school."),
        ("Put the signs in: well come in", "Well, come in!"),
        ("改正下面的错别字。\n今天天气很好，我们去公园玩。", "今天天气很好，我们去公园玩。"),
        ("Which part of it is the best?\nIt is this one", "It is this one, by far."),
    ],
)
def test_a_text_that_may_stay_as_it_is_is_no_echo(tmp_path: Path, capsys: Capture, asked: str, answer: str) -> None:
    assert "D204" not in found(capsys, put(tmp_path / "rows.jsonl", [*sound(), row(asked, answer)]))


@pytest.mark.parametrize(
    "answer",
    [
        "In Jinja write {{ name }} to print it.",
        "Write `{{ name }}` to print it.",
        "So:\n```\n{{ name }}\n```",
        "Put {{a}} in braces.",
        "It is \\frac{{ab}}{{cd}} of it.",
    ],
)
def test_a_placeholder_that_is_shown_is_told_and_stops_nothing(tmp_path: Path, capsys: Capture, answer: str) -> None:
    path = put(tmp_path / "rows.jsonl", [*sound(), row("How?", answer)])
    assert main(["data", "check", path]) == 0 and "warning D103" in " ".join(capsys.readouterr().out.split())
    put(tmp_path / "both.jsonl", [row("How?", answer), row("Who?", f"{answer} I am {{{{name}}}}."), *sound()])
    assert main(["data", "check", str(tmp_path / "both.jsonl"), "--json"]) in (0, 2)
    told = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["code"] == "D103"]
    assert told[0]["severity"] == ("warning" if "Jinja" in answer else "error")


def test_a_few_stock_openings_are_worth_a_word_and_one_is_not(tmp_path: Path, capsys: Capture) -> None:
    stock = [row(f"Can you tell {n}?", f"Certainly! It is the number {n}.") for n in range(3)]
    assert found(capsys, put(tmp_path / "a.jsonl", [*sound(), *stock]))["D212"]["severity"] == "info"
    assert "D212" not in found(capsys, put(tmp_path / "b.jsonl", [*sound(), *stock[:1]]))


def test_answering_in_another_language_can_be_what_the_data_is_for(tmp_path: Path, capsys: Capture) -> None:
    asked = [row(f"Say it, number {n}: {ENGLISH}", f"Numéro {n}. {FRENCH}") for n in range(40)]
    assert "D213" not in found(capsys, put(tmp_path / "a.jsonl", asked))
    one = row(f"Translate into French: {ENGLISH}", FRENCH)
    assert "D213" not in found(capsys, put(tmp_path / "b.jsonl", [*sound(), one]))


def test_answers_in_two_languages_to_questions_in_one_are_named(tmp_path: Path, capsys: Capture) -> None:
    mixed = [row(f"Tell me about the bridge and stone {n}.", f"{n}. {FRENCH if n % 2 else ENGLISH}") for n in range(60)]
    seen = found(capsys, put(tmp_path / "rows.jsonl", mixed))
    assert lines(seen["D213"]) == list(range(2, 61, 2))
    assert "English (50 %)" in seen["D210"]["message"] and "French (50 %)" in seen["D210"]["message"]
    both = [row(f"{n} {text}", f"{n}. {text}") for n in range(30) for text in (FRENCH, ENGLISH)]
    assert "D213" not in found(capsys, put(tmp_path / "both.jsonl", both))


def test_near_duplicates_name_the_row_they_repeat(tmp_path: Path, capsys: Capture) -> None:
    rows = [*sound(), row("Say it: " + LONG * 3, "One."), row("Say it: " + LONG * 3, "Two more.")]
    near = found(capsys, put(tmp_path / "rows.jsonl", rows))["D202"]["rows"]
    assert [(place["line"], place["like"]["line"]) for place in near] == [(62, 61)]
    assert "rows.jsonl:62 (like" in " ".join(_text(capsys, str(tmp_path / "rows.jsonl")).split())


def _text(capsys: Capture, *words: str) -> str:
    assert main(["data", "check", *words]) in (0, 2)
    return capsys.readouterr().out


def test_validation_rows_that_are_trained_on_are_named_with_their_twin(tmp_path: Path, capsys: Capture) -> None:
    train = sound()
    train[10] = row("Say it: " + LONG * 3, "One.")
    put(tmp_path / "train.jsonl", train)
    held = [row("Is it new?", "It is as new as the day."), train[4], row("Say it: " + LONG * 3, "One more.")]
    held.append(row(train[7]["instruction"], "Nobody knows it."))
    put(tmp_path / "held.jsonl", held)
    overlap = found(capsys, str(tmp_path / "train.jsonl"), f"data.validation={tmp_path / 'held.jsonl'}")["D401"]
    assert "1 exactly, 1 nearly, 1 with another answer" in overlap["message"]
    places = [
        (Path(p["file"]).name, p["line"], Path(p["like"]["file"]).name, p["like"]["line"]) for p in overlap["rows"]
    ]
    assert places == [
        ("held.jsonl", 2, "train.jsonl", 5), ("held.jsonl", 3, "train.jsonl", 11), ("held.jsonl", 4, "train.jsonl", 8),
    ]  # fmt: skip


def test_validation_rows_are_looked_at_as_well(tmp_path: Path, capsys: Capture) -> None:
    put(tmp_path / "held.jsonl", [row("New?", "It is a cafÃ©."), row("Empty?", " "), row("Bell?", "It \x07 rings.")])
    seen = found(capsys, put(tmp_path / "rows.jsonl", sound()), f"data.validation={tmp_path / 'held.jsonl'}")
    assert [lines(seen[code]) for code in ("D205", "D104", "D206")] == [[1], [2], [3]]


def test_labels(tmp_path: Path, capsys: Capture) -> None:
    rows = [{"text": f"Fact {n} on {SUBJECTS[n % 12]} is {n}.", "label": ["bad", "good"][n % 2]} for n in range(60)]
    rows += [{"text": "Fact 1 on bread is 1.", "label": "bad"}, {"text": "A stray one.", "label": "Good"}]
    rows += [{"text": "Another stray one.", "label": "bad "}]
    seen = found(capsys, put(tmp_path / "rows.jsonl", rows))
    assert set(lines(seen["D503"])) == {2, 61} and lines(seen["D504"]) == [62, 63]
    skewed = [{"text": f"Fact {n} on {SUBJECTS[n % 12]}.", "label": "bad" if n < 3 else "good"} for n in range(60)]
    assert {"D502", "D505"} <= set(found(capsys, put(tmp_path / "skewed.jsonl", skewed)))


@pytest.mark.parametrize(("count", "code"), [(9, "D101"), (49, "D102")])
def test_too_little_data_is_told_where_change_is_first_seen(
    tmp_path: Path, capsys: Capture, count: int, code: str
) -> None:
    assert "50 to 100 good" in found(capsys, put(tmp_path / "rows.jsonl", sound(count)))[code]["advice"]


def test_what_no_training_could_hold_rows_out_of_is_refused(tmp_path: Path, capsys: Capture) -> None:
    answers = [f"It is number {n}, and it stands by itself." for n in range(60)]
    path = put(tmp_path / "rows.jsonl", [row("Which one?", answer) for answer in answers])
    assert main(["data", "check", path]) == 2 and "D402" in capsys.readouterr().out
    assert main(["data", "check", put(tmp_path / "copies.jsonl", sound(1) * 100), "data.allow_few=true"]) == 2
    assert "D402" in capsys.readouterr().out
    held = put(tmp_path / "held.jsonl", [row("Nothing?", "")])
    words = [f"data.validation={held}", "data.allow_unlearned=true"]
    put(tmp_path / "sound.jsonl", sound())
    assert found(capsys, str(tmp_path / "sound.jsonl"), *words)["D402"]["severity"] == "error"
    for more in ("data.held_out=60", "data.held_out=59"):
        assert ("D402" in found(capsys, str(tmp_path / "sound.jsonl"), more)) == (more == "data.held_out=60")


def test_a_secret_is_written_out_nowhere(tmp_path: Path, capsys: Capture) -> None:
    secrets = ["sk-abcdEFGH1234567890abcdEFGH12345", "jane.doe@mailbox.org", "4111 1111 1111 1111", "+44 20 7946 0958"]
    rows = [row(f"Where is {n}?", f"Near \x07{secret} cafÃ© {secret}") for n, secret in enumerate(secrets)]
    path = put(tmp_path / "rows.jsonl", [*sound(), *rows])
    page = tmp_path / "page.html"
    assert main(["data", "check", path, "--json", "--html", str(page)]) == 0
    told = capsys.readouterr().out + _text(capsys, path) + page.read_text(encoding="utf-8")
    for secret in secrets:
        assert secret not in told
    assert {"D601", "D602", "D603", "D604"} <= set(found(capsys, path))


def test_what_cutting_would_cost_is_counted_with_the_base_and_estimated_without(
    tmp_path: Path, tiny_base: Path, capsys: Capture
) -> None:
    from tunewright.data.template import ChatTemplate
    from tunewright.example import Chat, Message, Origin

    long = row("Say it all.", LONG * 3)
    path = put(tmp_path / "rows.jsonl", [*sound(), long])
    seen = found(capsys, path, "--base", str(tiny_base), "data.max_length=128")["D301"]
    chat = Chat((Message("user", long["instruction"]), Message("assistant", long["output"], True)), Origin("f", 1, 1))
    [[rendered]] = ChatTemplate.from_folder(tiny_base).render_many([chat])
    behind = int(rendered.learn[128:].sum())
    assert seen["severity"] == "error" and lines(seen) == [61]
    assert f"at 128 tokens 1 rows and {behind:,} answer tokens" in seen["message"] and "at 64 tokens" in seen["message"]
    dropped = found(capsys, path, "--base", str(tiny_base), "data.max_length=128", "data.too_long=drop")
    assert dropped["D302"]["count"] == 1
    estimated = found(capsys, path, "data.max_length=64")["D306"]
    assert estimated["severity"] == "warning" and "at 64 tokens" in estimated["message"]


def test_a_training_finds_the_same(tmp_path: Path, tiny_base: Path, capsys: Capture) -> None:
    from tunewright.data.prepare import prepare
    from tunewright.data.template import ChatTemplate
    from tunewright.recipe.schema import Data

    left_out = ("D103", "D104", "D306")  # two stop a training, and the third is measured there
    rows = [one for code, some in PLANTED.items() for one in some if code not in left_out]
    path = put(tmp_path / "rows.jsonl", [*sound(), *rows])
    checked = found(capsys, path)
    template = ChatTemplate.from_folder(tiny_base)
    trained = prepare(Data(train=[path]), 0, lambda labels: template, 65536, cache=False).findings
    kept = {finding.code: finding.as_dict(5) for finding in trained}
    for code in checked.keys() - {"D306"}:
        assert kept[code] == {**checked[code], "rows": checked[code]["rows"][:5]}


def test_a_run_keeps_and_prints_its_findings(in_home: Path, tiny_run: Path, capsys: Capture) -> None:
    lines_kept = (tiny_run / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {finding["code"]: finding for finding in map(json.loads, lines_kept)}
    checked = found(capsys, "town.jsonl")
    assert checked and all(kept[code]["message"] == finding["message"] for code, finding in checked.items())


def test_every_finding_of_faults_planted_in_real_data(shared: Path, tmp_path: Path, capsys: Capture) -> None:
    real = json.loads((shared / "data/instruction/instruction-data.json").read_text(encoding="utf-8"))[:400]
    rows = [{"instruction": r["instruction"] + "\n" + r["input"], "output": r["output"]} for r in real]
    before = found(capsys, put(tmp_path / "real.jsonl", rows))
    assert set(before) <= {"D203", "D210"}
    planted = [(code, one) for code, some in PLANTED.items() for one in some if code not in ("D201", "D306")]
    seen = found(capsys, put(tmp_path / "planted.jsonl", [*rows, *(one for _code, one in planted)]))
    for number, (code, _one) in enumerate(planted, start=len(rows) + 1):
        assert number in lines(seen[code]), (code, number)


@pytest.mark.parametrize(
    ("name", "words", "most"),
    [
        ("medical_cot/medical_o1_demo.json", [], set()),
        ("gsm8k/test.jsonl", ["data.columns.question=question", "data.columns.answer=answer"], {"D206"}),
        ("rotten_tomatoes", [], {"D202", "D509"}),
        ("text/wikitext2_valid.txt", [], set()),
        ("multi30k/train.en", ["data.target=TARGET"], set()),
    ],
)
def test_good_real_data_is_left_alone(
    shared: Path, capsys: Capture, name: str, words: list[str], most: set[str]
) -> None:
    words = [word.replace("TARGET", str(shared / "data/multi30k/train.fr")) for word in words]
    assert set(found(capsys, str(shared / "data" / name), *words)) <= most | {"D210"}


def test_half_a_character_in_a_name_is_printed_as_its_code(tmp_path: Path, capsys: Capture) -> None:
    rows = [{**one, "\ud800": "x"} for one in sound()]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    assert main(["data", "check", str(path), "--html", str(tmp_path / "page.html")]) == 0
    assert "\\ud800" in capsys.readouterr().out
    talks = [talk(said("user", f"Q{n}", **{"\ud800": 1}), said("assistant", f"It is {n}.")) for n in range(60)]
    path.write_text("".join(json.dumps(one) + "\n" for one in talks), encoding="utf-8")
    assert "\\ud800" in found(capsys, str(path))["D106"]["message"]


def test_no_text_makes_a_check_hang(tmp_path: Path, capsys: Capture) -> None:
    bad = ["1 ", "[your ", "{a_", "<a ", "@a.", "sk-", "抱歉", "Ã©", "`", "+1 ", "sorry ", "eyJ", "作为"]
    rows = [row(f"Q{n}", sign * 10_000 + " end.") for n, sign in enumerate(bad)]
    assert main(["data", "check", put(tmp_path / "rows.jsonl", [*sound(), *rows]), "--json"]) in (0, 2)
    capsys.readouterr()
