"""500 random JSON Schemas for every kind of tokenizer, on models with random weights: finished answers validate.

`pytest -m soak tests/soak/test_constrained.py --hypothesis-show-statistics` runs it, and counts the answers.
"""

import json

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from paddlenlp.transformers import AutoModel, AutoTokenizer

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import ConstraintError
from tests.engine.test_engine import Client, run
from tests.generation.schemas import SCHEMAS
from tests.random_checkpoints import TOKENIZER, random_checkpoint, tiny_config
from tests.tokenizers.vocabularies import KINDS

pytestmark = pytest.mark.soak
TEMPLATES = {"qwen2": "internvl2_5", "yi": "Hermes-2", "phi3": "phi3-chat", "llama3": "internlm2-chat"}
CONFIG = EngineConfig(max_batch_size=4, cache_tokens=8192, enable_prefix_caching=False)


@pytest.fixture(scope="module", params=["internlm2", *KINDS])
def engine(request, tmp_path_factory):
    """An engine of a model of 2 layers with random weights and a tokenizer of a kind."""
    root = tmp_path_factory.mktemp(request.param)
    config = tiny_config("qwen2")
    if request.param in TEMPLATES:
        (root / "tokenizer").mkdir()
        folder, config["template"] = KINDS[request.param](root / "tokenizer"), TEMPLATES[request.param]
    else:
        folder = TOKENIZER
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return Engine(AutoModel.from_pretrained(str(random_checkpoint(root / "model", config))), tokenizer, CONFIG)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 9))
def test_finished_answers_parse_and_validate(engine, schema, seed):
    tokens = [i for i, text in engine.tokenizer.bytes_of_ids().items() if text.strip() in (b'"', b"}", b"]", b"0")]
    bias = dict.fromkeys(tokens, 8.0)  # random weights hardly ever close a string
    options = {"max_new_tokens": 200, "guided_json": schema}
    configs = [
        GenerationConfig(**options, logit_bias=bias),
        GenerationConfig(**options, logit_bias=bias, do_sample=True, temperature=1.5, seed=seed, top_k=0),
        GenerationConfig(max_new_tokens=6),
    ]
    prompt = build_prompt(engine.model, engine.tokenizer, [{"role": "user", "content": "shapes"}])
    try:
        clients = [Client(engine, prompt, config) for config in configs]
    except ConstraintError as error:
        assert "nsatisfiable" in str(error)
        event("no answer is possible")
        return
    run(engine)
    for client in clients[:2]:
        response = client.pieces[-1].response
        event(response.finish_reason)
        if response.finish_reason == "stop":
            answer = json.loads(response.text)
            jsonschema.Draft202012Validator(schema).validate(answer)
    free = Client(engine, prompt, configs[2])
    run(engine)
    assert free.ids == clients[2].ids
