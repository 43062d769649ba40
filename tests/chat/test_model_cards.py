"""The model cards' own code, restated with Paddle's names and run on the bundled checkpoint.

Only what no CPU has is left out (`.cuda()`), and answers are short. What the checkpoint was taught is checked.
"""

from threading import Thread

import paddle
import pytest
from paddlenlp.transformers import AutoConfig, AutoModel, AutoTokenizer, TextIteratorStreamer

from paddle_internvl import IMAGE_TOKEN, EngineConfig, GenerationConfig, load_image, load_video, pipeline
from paddle_internvl.vl import load_image as load_pil
from tests.random_checkpoints import ROOT, TOKENIZER

PATH = str(TOKENIZER)  # the bundled checkpoint
SHAPES, TWO = (str(ROOT / "demo/assets" / name) for name in ("shapes.png", "two.png"))
SETTINGS = dict(max_new_tokens=64, do_sample=False)
HELLO = "I am InternVL-tiny, a very small model that looks at simple pictures."


@pytest.fixture(scope="module")
def model():
    return AutoModel.from_pretrained(
        PATH, dtype=paddle.bfloat16, low_cpu_mem_usage=True, use_flash_attn=True, trust_remote_code=True
    ).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH, trust_remote_code=True, use_fast=False)


def pixels(file):
    return load_image(file, max_num=12).to(paddle.bfloat16)


def test_eight_bit():
    model = AutoModel.from_pretrained(
        PATH, dtype=paddle.bfloat16, load_in_8bit=True, low_cpu_mem_usage=True, use_flash_attn=True,
        trust_remote_code=True,
    ).eval()  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(PATH, trust_remote_code=True, use_fast=False)
    assert model.chat(tokenizer, None, "Hello, who are you?", SETTINGS) == HELLO


def test_pure_text(model, tokenizer):
    question = "Hello, who are you?"
    response, history = model.chat(tokenizer, None, question, SETTINGS, history=None, return_history=True)
    assert response == HELLO
    question = "Can you tell me a story?"
    response, history = model.chat(tokenizer, None, question, SETTINGS, history=history, return_history=True)
    assert response.startswith("A red circle met a blue square.")
    assert [asked for asked, _ in history] == ["Hello, who are you?", "Can you tell me a story?"]


def test_sampling(model, tokenizer):
    settings = dict(max_new_tokens=64, do_sample=True)
    assert model.chat(tokenizer, pixels(SHAPES), "<image>\nPlease describe the image shortly.", settings)


def test_single_image(model, tokenizer):
    pixel_values = pixels(SHAPES)
    question = "<image>\nPlease describe the image shortly."
    response, history = model.chat(tokenizer, pixel_values, question, SETTINGS, history=None, return_history=True)
    assert "red circle" in response
    question = "What color is the object in the center?"
    response, history = model.chat(tokenizer, pixel_values, question, SETTINGS, history=history, return_history=True)
    assert response == "blue" and len(history) == 2


def test_images_combined(model, tokenizer):
    pixel_values = paddle.concat((pixels(SHAPES), pixels(TWO)), axis=0)
    question = "<image>\nDescribe the two images in detail."
    response, history = model.chat(tokenizer, pixel_values, question, SETTINGS, history=None, return_history=True)
    question = "What are the similarities and differences between these two images."
    response, history = model.chat(tokenizer, pixel_values, question, SETTINGS, history=history, return_history=True)
    assert response and len(history) == 2


def test_images_separate(model, tokenizer):
    pixel_values1, pixel_values2 = pixels(SHAPES), pixels(TWO)
    pixel_values = paddle.concat((pixel_values1, pixel_values2), axis=0)
    num_patches_list = [pixel_values1.shape[0], pixel_values2.shape[0]]
    question = "Image-1: <image>\nImage-2: <image>\nWhich image has more objects?"
    response, history = model.chat(
        tokenizer, pixel_values, question, SETTINGS, num_patches_list=num_patches_list, history=None,
        return_history=True,
    )  # fmt: skip
    assert response == "Image-1"
    question = "How many objects are in Image-2?"
    response, history = model.chat(
        tokenizer, pixel_values, question, SETTINGS, num_patches_list=num_patches_list, history=history,
        return_history=True,
    )  # fmt: skip
    assert response and len(history) == 2


def test_batch(model, tokenizer):
    pixel_values1, pixel_values2 = pixels(SHAPES), pixels(TWO)
    num_patches_list = [pixel_values1.shape[0], pixel_values2.shape[0]]
    pixel_values = paddle.concat((pixel_values1, pixel_values2), axis=0)
    questions = ["<image>\nHow many objects are there?"] * len(num_patches_list)
    responses = model.batch_chat(
        tokenizer, pixel_values, num_patches_list=num_patches_list, questions=questions, generation_config=SETTINGS
    )
    assert responses == ["3", "2"]


def test_video(model, tokenizer):
    pixel_values, num_patches_list = load_video(str(ROOT / "demo/assets/clip.gif"), num_segments=4, max_num=1)
    video_prefix = "".join([f"Frame{i + 1}: <image>\n" for i in range(len(num_patches_list))])
    question = video_prefix + "Which way does the star move?"
    response, history = model.chat(
        tokenizer, pixel_values.to(paddle.bfloat16), question, SETTINGS, num_patches_list=num_patches_list,
        history=None, return_history=True,
    )  # fmt: skip
    assert response == "right"
    question = "Describe this video in detail."
    response, history = model.chat(
        tokenizer, pixel_values, question, SETTINGS, num_patches_list=num_patches_list, history=history,
        return_history=True,
    )  # fmt: skip
    assert "star" in response


def test_streaming(model, tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    question = "<image>\nPlease describe the image shortly."
    pixel_values = pixels(SHAPES)
    generation_config = dict(max_new_tokens=64, do_sample=False, streamer=streamer)
    thread = Thread(target=model.chat, kwargs=dict(
        tokenizer=tokenizer, pixel_values=pixel_values, question=question,
        history=None, return_history=False, generation_config=generation_config,
    ))  # fmt: skip
    thread.start()
    generated_text = ""
    for new_text in streamer:
        if new_text == model.conv_template.sep:
            break
        generated_text += new_text
    thread.join()
    assert generated_text.strip() == model.chat(tokenizer, pixel_values, question, SETTINGS)


def test_internvl3_and_3_5(tokenizer):
    """What their cards add: layers counted from the config, device_map="auto", a system message for thinking."""
    assert AutoConfig.from_pretrained(PATH, trust_remote_code=True).llm_config.num_hidden_layers > 0
    model = AutoModel.from_pretrained(
        PATH, dtype=paddle.bfloat16, load_in_8bit=False, low_cpu_mem_usage=True, use_flash_attn=True,
        trust_remote_code=True, device_map="auto",
    ).eval()  # fmt: skip
    assert model.chat(tokenizer, None, "Hello, who are you?", SETTINGS) == HELLO
    model.system_message = "Reply after a thought."
    assert "Reply after a thought." in model.render_prompt([{"role": "user", "content": "Hi"}])


@pytest.fixture(scope="module")
def pipe():
    with pipeline(PATH, backend_config=EngineConfig(session_len=8192)) as pipe:
        yield pipe


def test_pipeline_hello_world(pipe):
    response = pipe(("describe this image", load_pil(SHAPES)))
    assert response.text and response.finish_reason == "stop"
    assert response.input_token_len > 49 and response.pictures[0].tokens == 49


def test_pipeline_multi_images(pipe):
    images = [load_pil(file) for file in (SHAPES, TWO)]
    question = f"Image-1: {IMAGE_TOKEN}\nImage-2: {IMAGE_TOKEN}\nWhich image has more objects?"
    assert pipe((question, images)).text == "Image-1"
    assert pipe(("Which image has more objects?", images)).text == "Image-1"  # numbered the same way by itself


def test_pipeline_batch(pipe):
    prompts = [("How many objects are there?", load_pil(file)) for file in (SHAPES, TWO)]
    response = pipe(prompts)
    assert [r.text for r in response] == ["3", "2"] and [r.index for r in response] == [0, 1]


def test_pipeline_multi_turn(pipe):
    image = load_pil(SHAPES)
    gen_config = GenerationConfig(top_k=40, top_p=0.8, temperature=0.8)
    sess = pipe.chat(("How many objects are there?", image), gen_config=gen_config)
    assert sess.response.text == "3"
    sess = pipe.chat("What color is the object in the center?", session=sess, gen_config=gen_config)
    assert sess.response.text == "blue" and [answer for _, answer in sess.history] == ["3", "blue"]
    messages = [
        dict(role="user", content=[
            dict(type="text", text="How many objects are there?"),
            dict(type="image_url", image_url=dict(max_dynamic_patch=12, url=SHAPES)),
        ]),
        dict(role="assistant", content="3"),
        dict(role="user", content="What color is the object in the center?"),
    ]  # fmt: skip
    out = pipe(messages, gen_config=gen_config)
    assert out.text == "blue" and out.token_ids == sess.response.token_ids
