"""The model cards' client code, unchanged, against the bundled checkpoint behind its real engine."""

import asyncio
import json
import threading

import httpx
import openai
import pytest

from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.engine.request import RequestState
from tests.random_checkpoints import ROOT
from tests.serve.running import WAIT, running, wait_until

QUESTION = "Describe the image."


@pytest.fixture(scope="module")
def server(tiny):
    config = EngineConfig(max_batch_size=2, max_waiting=1, cache_tokens=8192, session_len=1024)
    thread = EngineThread(engine_of(tiny, tiny.tokenizer, config))
    thread.start()
    with running(thread, served_model_name="internvl-tiny", api_keys=("YOUR_API_KEY",)) as served:
        yield served
    thread.close()


@pytest.fixture(scope="module")
def client(server):
    # An own transport: the machine's proxy settings are not to be asked.
    with httpx.Client(trust_env=False, timeout=60) as http:
        yield openai.OpenAI(
            api_key="YOUR_API_KEY", base_url=f"{server.url}/v1", http_client=http, max_retries=0
        )  # fmt: skip


def asked(url: str, text: str = QUESTION, **options) -> list[dict]:
    image = {"type": "image_url", "image_url": {"url": url, **options}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]


@pytest.fixture(scope="module")
def expected(tiny):
    """What the Python API answers."""
    picture = {"type": "image", "image": str(ROOT / "demo/assets/shapes.png")}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]
    return tiny.chat_messages(messages, {"max_new_tokens": 64})


def test_the_cards_code(client, picture_url, expected):
    model_name = client.models.list().data[0].id
    response = client.chat.completions.create(
        model=model_name,
        messages=[{
            "role": "user",
            "content": [
                {"type": "text", "text": QUESTION},
                {"type": "image_url", "image_url": {"url": picture_url}},
            ],
        }],
        temperature=0,
        top_p=0.8)  # fmt: skip
    assert model_name == "internvl-tiny" and response.choices[0].message.content == expected.text
    assert response.choices[0].finish_reason == expected.finish_reason == "stop"
    usage = response.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.input_token_len, expected.generate_token_len)
    assert usage.prompt_tokens_details.image_tokens == sum(cost.tokens for cost in expected.pictures)
    assert client.models.retrieve("internvl-tiny").id == "internvl-tiny"


def test_a_stream_is_the_whole_answer(client, picture_url, expected):
    stream = client.chat.completions.create(
        model="internvl-tiny", messages=asked(picture_url), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage.completion_tokens == expected.generate_token_len


def test_concurrent_streams(server, picture_url, expected):
    async def ask_all():
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            client = openai.AsyncOpenAI(
                api_key="YOUR_API_KEY", base_url=f"{server.url}/v1", http_client=http, max_retries=50
            )  # fmt: skip

            async def one():
                text = ""
                stream = await client.chat.completions.create(
                    model="internvl-tiny", messages=asked(picture_url), stream=True
                )
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                return text

            return await asyncio.gather(*[one() for _ in range(3)])

    assert asyncio.run(ask_all()) == [expected.text] * 3


def test_settings(client, picture_url, expected):
    def ask(**settings):
        return client.chat.completions.create(model="internvl-tiny", messages=asked(picture_url), **settings).choices

    stop = expected.text.split()[1]
    assert ask(stop=stop)[0].message.content == expected.text.split(stop)[0].strip()
    (short,) = ask(max_completion_tokens=2)
    assert short.finish_reason == "length" and expected.text.startswith(short.message.content)
    assert [choice.message.content for choice in ask(n=2)] == [expected.text] * 2
    first, again = (
        [choice.message.content for choice in ask(n=2, temperature=1.5, seed=5, max_tokens=8)] for _ in range(2)
    )
    assert first == again
    extended = ask(extra_body={"top_k": 1, "repetition_penalty": 1.0}, temperature=2, seed=1)
    assert extended[0].message.content == expected.text


def test_log_probabilities_are_those_of_the_python_api(client, tiny, picture_url):
    picture = {"type": "image", "image": str(ROOT / "demo/assets/shapes.png")}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]
    direct = tiny.chat_messages(messages, {"max_new_tokens": 64, "log_probs": True, "top_logprobs": 3})
    (choice,) = client.chat.completions.create(
        model="internvl-tiny", messages=asked(picture_url), logprobs=True, top_logprobs=3
    ).choices
    content = choice.logprobs.content
    assert [entry.logprob for entry in content] == pytest.approx(
        [next(iter(step.values())) for step in direct.logprobs[: len(content)]], abs=1e-4
    )
    assert len(content) == len(direct.logprobs) - 1 and all(len(entry.top_logprobs) == 3 for entry in content)
    assert bytes(byte for entry in content for byte in entry.bytes).decode().strip() == direct.text
    best = sorted(direct.logprobs[0].values(), reverse=True)[:3]
    assert [top.logprob for top in content[0].top_logprobs] == pytest.approx(best, abs=1e-4)


def test_text_completions(client, tiny):
    answer = client.completions.create(model="internvl-tiny", prompt="There are", max_tokens=4, logprobs=1)
    assert answer.choices[0].finish_reason in ("length", "stop") and answer.usage.completion_tokens <= 4
    assert len(answer.choices[0].logprobs.tokens) == len(answer.choices[0].logprobs.token_logprobs)


def test_errors_are_the_clients_own(client, server, picture_url):
    say = [{"role": "user", "content": "a"}]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=say)
    assert caught.value.code == "model_not_found" and caught.value.request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="internvl-tiny", messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="internvl-tiny", messages=asked("data:image/png;base64,AAAA"))
    assert caught.value.code == "invalid_media" and caught.value.param == "messages"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="internvl-tiny", messages=asked("http://127.0.0.1/a.png"))


def test_row_12_leaving_frees_the_engine_within_a_step(client, server):
    before = server.engine.stats().cancelled
    stream = client.chat.completions.create(
        model="internvl-tiny", messages=[{"role": "user", "content": "a"}], stream=True, max_tokens=900,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    next(iter(stream))
    stream.close()
    wait_until(lambda: server.engine.stats().cancelled == before + 1 and server.engine.stats().running == 0)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model="internvl-tiny", messages=[{"role": "user", "content": "a"}], max_tokens=900,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
    wait_until(lambda: server.engine.stats().cancelled == before + 2)
    wait_until(lambda: server.engine.stats().blocks_used == 0 or server.engine.engine.idle)


def test_row_13_a_full_queue_is_429(client, server):
    def long():
        return client.chat.completions.create(
            model="internvl-tiny", messages=[{"role": "user", "content": "a"}], stream=True, max_tokens=900,
            extra_body={"ignore_eos": True},
        )  # fmt: skip

    streams = [long(), long()]
    waiting = threading.Thread(target=lambda: streams.append(long()))
    waiting.start()
    wait_until(lambda: server.engine.stats().waiting == 1)
    with pytest.raises(openai.RateLimitError) as caught:
        long()
    assert int(caught.value.response.headers["retry-after"]) > 0
    for stream in streams:
        stream.close()
    waiting.join(WAIT)
    streams[-1].close()
    wait_until(lambda: server.engine.engine.idle)


def test_row_32_a_bad_request_costs_only_itself(client, server, picture_url, expected, monkeypatch):
    """While one fails in the engine, another is answered, and so is the next."""
    append = RequestState.append

    def faulty(request, *arguments):
        if request.config.seed == 666:
            raise RuntimeError("/secret/path")
        return append(request, *arguments)

    monkeypatch.setattr(RequestState, "append", faulty)
    good = []
    thread = threading.Thread(
        target=lambda: good.append(
            client.chat.completions.create(model="internvl-tiny", messages=asked(picture_url))
        )
    )  # fmt: skip
    thread.start()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="internvl-tiny", messages=[{"role": "user", "content": "a"}], seed=666
        )  # fmt: skip
    assert "secret" not in str(caught.value)
    thread.join(60)
    assert good[0].choices[0].message.content == expected.text
    assert client.models.list().data[0].id == "internvl-tiny"


def test_the_responses_api(client, picture_url, expected):
    turn = {"role": "user", "content": [
        {"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": picture_url, "detail": "auto"},
    ]}  # fmt: skip
    response = client.responses.create(model="internvl-tiny", input=[turn])
    assert response.output_text == expected.text and response.status == "completed"
    assert response.usage.input_tokens == expected.input_token_len
    *events, last = list(client.responses.create(model="internvl-tiny", input=[turn], stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas).strip() == last.response.output_text == expected.text
    again = [turn, *response.output, {"role": "user", "content": "hello"}]
    cut = client.responses.create(model="internvl-tiny", input=again, max_output_tokens=1)
    assert cut.status == "incomplete" and cut.incomplete_details.reason == "max_output_tokens"


def test_lmdeploy_s_generate(server, tiny):
    def ask(body, path="/generate"):
        headers = {"Authorization": "Bearer YOUR_API_KEY"}
        return httpx.post(server.url + path, json=body, headers=headers, timeout=WAIT, trust_env=False)

    settings = {"max_tokens": 6, "temperature": 0, "return_logprob": True}
    answer = ask({"prompt": "There are", **settings}).json()
    ids = ask({"prompt": "There are"}, "/tokenize").json()["tokens"]
    assert ask({"input_ids": ids, **settings}).json()["output_ids"] == answer["output_ids"]
    completion = ask({"model": "internvl-tiny", "prompt": "There are", "max_tokens": 6}, "/v1/completions").json()
    assert answer["text"] == completion["choices"][0]["text"]
    meta = answer["meta_info"]
    assert [token for _, token in meta["output_token_logprobs"]] == answer["output_ids"]
    assert meta["finish_reason"]["type"] == completion["choices"][0]["finish_reason"]
    *pieces, end = ask({"prompt": "There are", **settings, "stream": True}).text.strip().split("\n\n")
    pieces = [json.loads(piece.removeprefix("data: ")) for piece in pieces]
    assert end == "data: [DONE]" and "".join(piece["text"] for piece in pieces) == answer["text"]
    for refused in ({}, {"input_ids": [tiny.img_context_token_id]}, {"prompt": "a", "image_data": "http://x/a.png"}):
        assert ask(refused).status_code == 400
