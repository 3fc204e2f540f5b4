"""OpenAI's own client against a real server: what it decodes strictly, what streams, what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import openai
import pytest
from pydantic import BaseModel
from tests.serve.conftest import Server

QUESTION = "What is the river number 0 called?"
ASK: dict[str, Any] = {
    "model": "town-1", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 12,
}  # fmt: skip


@pytest.fixture
def strict(server: Server) -> Any:
    with server.client(_strict_response_validation=True) as made:
        yield made


def test_models_are_listed_and_retrieved(strict: openai.OpenAI) -> None:
    names = [model.id for model in strict.models.list()]
    assert names[:4] == ["town-1", "texts-1", "pairs-1", "tools-1"]
    assert strict.models.retrieve("town-1").owned_by == "tunewright"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("ft:nobody/knows:this")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist"):
        client.chat.completions.create(**ASK | {"model": "gpt-9"})


def test_chat_is_decoded_strictly(strict: openai.OpenAI) -> None:
    done = strict.chat.completions.create(**ASK)
    assert done.choices[0].finish_reason == "length" and done.choices[0].message.content
    assert done.usage is not None
    assert done.usage.completion_tokens == 12 and done.usage.total_tokens == done.usage.prompt_tokens + 12
    assert (done._request_id or "").startswith("req_")


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK)
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert all(chunk.usage is None for chunk in chunks[:-1]) and len({chunk.id for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]


def test_streams_are_decoded_strictly(strict: openai.OpenAI) -> None:
    assert len(list(strict.chat.completions.create(**ASK, stream=True, logprobs=True))) > 3


def test_many_at_once_answer_as_each_alone(server: Server) -> None:
    questions = [f"What is the bridge number {number} called?" for number in range(8)]

    def asked(question: str) -> dict[str, Any]:
        return ASK | {"messages": [{"role": "user", "content": question}]}

    async def together() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            done = await asyncio.gather(*(client.chat.completions.create(**asked(q)) for q in questions))
            return [one.choices[0].message.content for one in done]

    with server.client() as client:
        alone = [client.chat.completions.create(**asked(q)).choices[0].message.content for q in questions]
    assert asyncio.run(together()) == alone


def test_an_asynchronous_stream(server: Server) -> None:
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(read()).startswith("The ")


def test_several_choices_differ_and_come_again_with_their_seed(client: openai.OpenAI) -> None:
    asked = ASK | {"temperature": 1.5, "n": 3, "seed": 7}
    first, again = (client.chat.completions.create(**asked) for _time in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2] and len(set(texts)) == 3
    assert texts == [choice.message.content for choice in again.choices]
    assert first.usage is not None and first.usage.completion_tokens <= 36


def test_streamed_choices_come_side_by_side(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**ASK, n=2, stream=True))
    ends = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
    assert sorted(ends) == [0, 1]


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK).choices[0].message.content or ""
    word = whole.split()[2]
    done = client.chat.completions.create(**ASK, stop=[f" {word}", "nowhere"]).choices[0]
    assert done.message.content == whole.partition(f" {word}")[0] and done.finish_reason == "stop"
    chunks = client.chat.completions.create(**ASK, stop=f" {word}", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == done.message.content


def test_log_probabilities_are_those_of_the_text(strict: openai.OpenAI) -> None:
    choice = strict.chat.completions.create(**ASK, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    entries = choice.logprobs.content
    assert "".join(entry.token for entry in entries) == choice.message.content and len(entries) == 12
    for entry in entries:
        assert len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob == entry.logprob  # greedy
        assert entry.bytes is None or bytes(entry.bytes).decode() == entry.token


def test_streamed_log_probabilities_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK, logprobs=True).choices[0].logprobs
    found = []
    for chunk in client.chat.completions.create(**ASK, logprobs=True, stream=True):
        found += chunk.choices[0].logprobs.content or [] if chunk.choices[0].logprobs else []
    assert whole is not None and [e.token for e in found] == [e.token for e in whole.content or []]


class River(BaseModel):
    name: str
    number: int


def test_parse_gives_an_object_of_the_schema(client: openai.OpenAI) -> None:
    asked = {key: value for key, value in ASK.items() if key != "max_tokens"}
    for seed in range(5):
        try:
            done = client.chat.completions.parse(
                **asked | {"temperature": 1}, seed=seed, max_tokens=200, response_format=River
            )
        except openai.LengthFinishReasonError:
            continue  # a model that knows no JSON may spend its tokens within one text
        parsed = done.choices[0].message.parsed
        assert parsed is not None and set(parsed.model_dump()) == {"name", "number"}
        return
    pytest.fail("no answer ended within its tokens")


def test_any_object_is_json(client: openai.OpenAI) -> None:
    for seed in range(5):
        done = client.chat.completions.create(
            **ASK | {"temperature": 1, "max_tokens": 200}, seed=seed, response_format={"type": "json_object"}
        ).choices[0]
        if done.finish_reason == "stop":
            assert isinstance(json.loads(done.message.content or ""), dict)
            return
    pytest.fail("no answer ended within its tokens")


def test_a_schema_that_cannot_be_followed_is_refused(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no such type"}}}
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(**ASK, response_format=form)  # type: ignore[call-overload]


# -- completions -----------------------------------------------------------------------------------------------------


def test_completions_go_on_with_a_text(strict: openai.OpenAI) -> None:
    done = strict.completions.create(model="town-1", prompt="The river", temperature=0, max_tokens=5, logprobs=2)
    choice = done.choices[0]
    assert choice.finish_reason == "length" and done.usage is not None and done.usage.completion_tokens == 5
    assert choice.logprobs is not None and choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text and len(choice.logprobs.top_logprobs or []) == 5
    for likely in choice.logprobs.top_logprobs or []:
        assert list(likely.values()) == sorted(likely.values(), reverse=True)


def test_log_probabilities_say_where_each_token_stands_in_the_text(client: openai.OpenAI) -> None:
    """Also behind tokens that are a part of a character."""
    plain: dict[str, Any] = {"model": "town-1", "prompt": "你好", "max_tokens": 40, "temperature": 1.8, "logprobs": 1}
    halves = 0
    for seed in range(8):
        choice = client.completions.create(**plain, seed=seed).choices[0]
        streamed = [chunk.choices[0] for chunk in client.completions.create(**plain, seed=seed, stream=True)]
        assert choice.logprobs is not None
        tokens, places = choice.logprobs.tokens or [], choice.logprobs.text_offset or []
        for token, place in zip(tokens, places, strict=True):
            assert "\ufffd" in token or token.startswith("<|") or choice.text.startswith(token, place)
        halves += any("\ufffd" in token for token in tokens[:20])
        assert places == [place for part in streamed if part.logprobs for place in part.logprobs.text_offset or []]
    assert halves


def test_a_prompt_written_out_with_its_template_is_the_chat(client: openai.OpenAI) -> None:
    written = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    done = client.completions.create(model="town-1", prompt=written, temperature=0, max_tokens=12)
    chat = client.chat.completions.create(**ASK)
    assert done.choices[0].text == chat.choices[0].message.content
    assert done.usage is not None and chat.usage is not None and done.usage.prompt_tokens == chat.usage.prompt_tokens


def test_lists_of_prompts_ids_and_echo(client: openai.OpenAI) -> None:
    plain = {"model": "town-1", "temperature": 0, "max_tokens": 3}
    done = client.completions.create(**plain, prompt=["The river", "The bridge"], n=2, echo=True)
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert [choice.text.split()[1] for choice in done.choices] == ["river", "river", "bridge", "bridge"]
    assert len(client.completions.create(**plain, prompt=[[5, 6], [7]]).choices) == 2
    assert client.completions.create(**plain, prompt=[5, 6]).usage.prompt_tokens == 2  # type: ignore[union-attr]
    with pytest.raises(openai.BadRequestError, match="below"):
        client.completions.create(**plain, prompt=[5, 10**6])


def test_completions_stream(client: openai.OpenAI) -> None:
    plain = {"model": "town-1", "temperature": 0, "max_tokens": 6, "prompt": "The river"}
    chunks = list(client.completions.create(**plain, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == client.completions.create(**plain).choices[0].text and chunks[-1].usage is not None


def test_an_output_comes_through_completions_and_chat(client: openai.OpenAI) -> None:
    done = client.completions.create(model="pairs-1", prompt="salt 3", max_tokens=16)
    chat = client.chat.completions.create(
        model="pairs-1",
        max_tokens=16,
        messages=[{"role": "user", "content": "x"}, {"role": "user", "content": "salt 3"}],
    )
    assert done.choices[0].text == chat.choices[0].message.content != ""
    assert (
        "".join(
            chunk.choices[0].text
            for chunk in client.completions.create(model="pairs-1", prompt="salt 3", max_tokens=16, stream=True)
        )
        == done.choices[0].text
    )
    with pytest.raises(openai.BadRequestError, match="beams"):
        client.completions.create(model="pairs-1", prompt="salt 3", temperature=0.7)
    nothing = client.completions.create(model="pairs-1", prompt="salt 3", max_tokens=0, echo=True)
    assert nothing.choices[0].text == "salt 3" and nothing.usage.completion_tokens == 0  # type: ignore[union-attr]


# -- embeddings and labels -------------------------------------------------------------------------------------------


def test_embeddings_are_the_same_in_both_forms(strict: openai.OpenAI, client: openai.OpenAI) -> None:
    texts = ["the river and the bread", "the bridge", "the river and the bread, which is older than the church"]
    packed = client.embeddings.create(model="reader", input=texts)  # asks for base64, which its strict mode cannot read
    plain = strict.embeddings.create(model="reader", input=texts[:1], encoding_format="float")
    vectors = np.array([entry.embedding for entry in packed.data])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[0], plain.data[0].embedding, atol=1e-6)
    assert packed.usage.prompt_tokens > plain.usage.prompt_tokens > 5


def test_base64_is_little_endian_float32(server: Server, client: openai.OpenAI) -> None:
    body = {"model": "reader", "input": "the river", "encoding_format": "base64"}
    raw = client.post("/embeddings", body=body, cast_to=dict[str, Any])
    told = np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), dtype="<f4")
    plain = client.embeddings.create(model="reader", input="the river", encoding_format="float").data[0].embedding
    none = client.post("/embeddings", body=body | {"encoding_format": None}, cast_to=dict[str, Any])
    assert none["data"][0]["embedding"] == plain
    assert np.array_equal(told, np.array(plain, dtype=np.float32))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([[1, 2]], "another tokenizer"),
        ([], "1 to 2048"),
        ([" "], "without any character"),
        (["river " * 99], "context"),
    ],
)
def test_what_cannot_be_embedded_is_refused(client: openai.OpenAI, given: Any, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        client.embeddings.create(model="reader", input=given)


def test_labels_come_with_probabilities(client: openai.OpenAI) -> None:
    def labels(given: Any) -> list[dict[str, Any]]:
        found = client.post("/classify", body={"model": "texts-1", "input": given}, cast_to=dict[str, Any])
        return list(found["data"])

    rows = labels(["The river rises in the hills 3", {"text": "people of the valley follow the bridge 5"}])
    assert [row["label"] for row in rows] == ["wet", "dry"] and [row["index"] for row in rows] == [0, 1]
    for row in rows:
        assert abs(sum(row["probabilities"].values()) - 1) < 1e-5
        assert row["probability"] == max(row["probabilities"].values())
    assert labels("The river rises in the hills 3") == labels({"text": "The river rises in the hills 3"}) == rows[:1]
    with pytest.raises(openai.BadRequestError, match="at least 1 item"):
        labels([])
    with pytest.raises(openai.BadRequestError, match="without any character"):
        labels([""])
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        labels(["river " * 200])


@pytest.mark.parametrize("model", ["texts-1", "reader"])
def test_each_model_names_its_endpoint(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Did you mean to use v1/"):
        client.chat.completions.create(**ASK | {"model": model})
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="town-1", input="x")
