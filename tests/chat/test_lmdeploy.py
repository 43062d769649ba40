"""LMDeploy's names: the model cards' lines run with the import renamed; unsupported settings are refused."""

import subprocess
import sys
from dataclasses import asdict

import pytest
from PIL import Image

import paddle_internvl
from paddle_internvl import ChatTemplateConfig, EngineConfig, PytorchEngineConfig, TurbomindEngineConfig
from paddle_internvl.chat.lmdeploy import require_template
from paddle_internvl.prompt.templates import get_conv_template
from tests.random_checkpoints import ROOT, TOKENIZER

# Of the cards of InternVL2 and 2.5; their 8B model and pictures from the network stand for the files here.
CARD = """
from lmdeploy import pipeline, TurbomindEngineConfig, GenerationConfig, ChatTemplateConfig
from lmdeploy.vl import load_image
from lmdeploy.vl.constants import IMAGE_TOKEN

chat_template_config = ChatTemplateConfig('internvl2_5')
chat_template_config.meta_instruction = system_prompt
pipe = pipeline(model, chat_template_config=chat_template_config,
                backend_config=TurbomindEngineConfig(session_len=2048), log_level='INFO')
images = [load_image(file) for file in files]
answers.append(pipe(('Describe the image.', images[0])).text)
answers.append(pipe((f'Image-1: {IMAGE_TOKEN}\\nImage-2: {IMAGE_TOKEN}\\nWhich image has more objects?', images)).text)
answers += [response.text for response in pipe([('How many objects are there?', image) for image in images])]
gen_config = GenerationConfig(top_k=40, top_p=0.8, temperature=0.8)
sess = pipe.chat(('Describe the image.', images[0]), gen_config=gen_config)
sess = pipe.chat('What color is the object in the center?', session=sess, gen_config=gen_config)
answers.append(sess.response.text)
pipe.close()
"""

# Of the cards of InternVL3 and 3.5.
NEWER_CARD = """
from lmdeploy import pipeline, PytorchEngineConfig, GenerationConfig, ChatTemplateConfig
from lmdeploy.vl import load_image

pipe = pipeline(model, backend_config=PytorchEngineConfig(session_len=32768, tp=1),
                chat_template_config=ChatTemplateConfig(model_name='internvl2_5'))
response = pipe([('How many objects are there?', load_image(file)) for file in files])
answers += [one.text for one in response]
gen_config = GenerationConfig(top_k=50, top_p=0.95, temperature=0.6, max_new_tokens=8192)
sess = pipe.chat(('How many objects are there?', load_image(files[0])), gen_config=gen_config)
answers.append(sess.response.text)
sess = pipe.chat('What color is the object in the center?', session=sess, gen_config=gen_config)
answers.append(sess.response.text)
pipe.close()
"""


def test_lines_of_the_model_cards():
    files = [str(ROOT / "demo/assets" / name) for name in ("shapes.png", "two.png")]
    template = get_conv_template("internvl2_5")
    names = {"model": str(TOKENIZER), "files": files, "answers": [], "system_prompt": template.system_message}
    exec(CARD.replace("lmdeploy", "paddle_internvl", 3), names)
    assert isinstance(names["images"][0], Image.Image)
    assert names["answers"] == [
        "A red circle in the top left, a blue square in the center and a green triangle in the bottom right.",
        "Image-1", "3", "2", "blue",
    ]  # fmt: skip


def test_lines_of_the_newer_model_cards():
    names = {"model": str(TOKENIZER), "files": [str(ROOT / "demo/assets" / name) for name in ("shapes.png", "two.png")]}
    names["answers"] = []
    exec(NEWER_CARD.replace("lmdeploy", "paddle_internvl"), names)
    assert names["answers"] == ["3", "2", "3", "blue"]


def test_a_chat_template_is_the_checkpoint_s():
    """`--chat-template internvl2_5` of the InternVL3 card's command line."""
    require_template("internvl2_5", get_conv_template("internvl2_5"))
    with pytest.raises(ValueError, match="chat template 'llama3' is not the checkpoint's, 'internvl2_5'; use 'inter"):
        require_template("llama3", get_conv_template("internvl2_5"))


@pytest.mark.parametrize("config", [TurbomindEngineConfig, PytorchEngineConfig])
def test_arguments_become_an_engine_config(config):
    assert asdict(config()) == asdict(EngineConfig())
    given = config(
        session_len=8192, max_batch_size=None, cache_max_entry_count=0.5, max_prefill_token_num=512, tp=1,
        enable_prefix_caching=False, quant_policy=0, device_type="cuda", eager_mode=True, model_format="hf",
        block_size=64, dtype="auto", adapters=None, revision=None, rope_scaling_factor=0.0,
    )  # fmt: skip
    expected = EngineConfig(
        session_len=8192, cache_max_entry_count=0.5, prefill_chunk=512, enable_prefix_caching=False, device="gpu"
    )
    assert asdict(given) == asdict(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"tp": 2},
            ValueError,
            "tp=2 is not supported; a pipeline runs in one process; use `paddle-internvl serve --tp",
        ),
        ({"quant_policy": 8}, ValueError, "quant_policy=8 is not supported; the KV cache is not quantized"),
        ({"rope_scaling_factor": 2.0}, ValueError, "rope_scaling_factor=2.0 is not supported; set llm_config"),
        ({"model_format": "gptq"}, ValueError, "model_format='gptq' is not supported; the folder's config.json"),
        ({"adapters": {"a": "b"}}, ValueError, "adapters=.* is not supported; give one adapter"),
        ({"revision": "v1"}, ValueError, "revision='v1' is not supported; give revision=... to pipeline"),
        ({"cache_max_entry_count": 64}, ValueError, r"cache_max_entry_count=64 is not in \(0, 1\]"),
        ({"session_length": 1}, TypeError, "neither EngineConfig nor LMDeploy has an argument 'session_length'"),
    ],
)
def test_arguments_that_change_answers_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        TurbomindEngineConfig(**arguments)


def test_chat_template_config():
    template = get_conv_template("internvl2_5")
    assert ChatTemplateConfig("internvl2_5", meta_instruction="Be brief.").system_message(template) == "Be brief."
    assert ChatTemplateConfig("internvl2_5", capability="chat").system_message(template) is None
    for config, message in (
        (
            ChatTemplateConfig("internvl2-phi3"),
            "chat template 'internvl2-phi3' is not the checkpoint's, .*; use 'inte",
        ),
        (ChatTemplateConfig("internvl2_5", eosys="x"), "eosys is not supported: the checkpoint has its own template"),
        (ChatTemplateConfig("internvl2_5", capability="completion"), "capability='completion' is not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            config.system_message(template)


def test_the_names_are_imported_without_paddle():
    """A program that builds its configurations first does not wait for Paddle."""
    code = "import sys; from paddle_internvl.vl.constants import IMAGE_TOKEN; assert 'paddle' not in sys.modules"
    assert paddle_internvl.TurbomindEngineConfig is TurbomindEngineConfig
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
