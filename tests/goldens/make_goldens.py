"""Write the reference values that tests compare with, from upstream's own code on torch. Run `make goldens`.

    python -m tests.goldens.make_goldens --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL. Needs torch and transformers besides this project's own
requirements. The weights are `random_checkpoint`'s, so only inputs' seeds and outputs are kept.
Every file holds its birth certificate under `made_by`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from tests.families import GOLDEN, MEMBERS
from tests.goldens import texts
from tests.random_checkpoints import TOKENIZER, random_checkpoint, random_pixels, tiny_config

HERE = Path(__file__).parent
QWEN3 = "internvl_chat_gpt_oss"  # the package of upstream's repository that has InternVL3.5; others: internvl_chat
NEW_TOKENS = 24


def import_upstream(clone: Path):
    """Upstream's classes by package, and its tokenizer; both packages are called `internvl`.

    DropPath (timm) and LoRA (peft) are stood in for, neither acts in inference."""

    class DropPath(nn.Module):
        def __init__(self, rate: float = 0.0):
            super().__init__()

        def forward(self, x):
            return x

    for name in ("timm", "timm.layers", "timm.models", "timm.models.layers", "peft"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
    sys.modules["timm.layers"].DropPath = sys.modules["timm.models.layers"].DropPath = DropPath
    sys.modules["peft"].LoraConfig = sys.modules["peft"].get_peft_model = None
    classes = {}
    for package in (QWEN3, "internvl_chat"):
        for name in [name for name in sys.modules if name.partition(".")[0] == "internvl"]:
            del sys.modules[name]
        sys.path.insert(0, str(clone / package))
        from internvl.model.internvl_chat.configuration_internvl_chat import InternVLChatConfig
        from internvl.model.internvl_chat.modeling_internvl_chat import InternVLChatModel

        classes[package] = InternVLChatConfig, InternVLChatModel
    from internvl.model.internlm2.tokenization_internlm2 import InternLM2Tokenizer

    return classes, InternLM2Tokenizer


def certificate(clone: Path, **more) -> dict:
    """What made a golden."""
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    return {"upstream": commit, **versions, **more}


def start_request(model) -> None:
    """Dynamic NTK keeps the longest length it has met; every request starts anew."""
    for layer in model.language_model.model.layers:
        if hasattr(layer, "attention"):
            layer.attention._init_rope()
    rotary = getattr(model.language_model.model, "rotary_emb", None)  # of transformers' models
    if rotary is not None:
        rotary.inv_freq, rotary.max_seq_len_cached = rotary.original_inv_freq, rotary.original_max_seq_len


def greedy(model, pixel_values, input_ids, new_tokens: int, ends: tuple[int, ...] = ()) -> list[int]:
    """Upstream's decoder with its KV cache, step by step, taking the likeliest token, as its `generate` does."""
    start_request(model)
    cached = model.language_model.config.use_cache
    embeds = model.language_model.get_input_embeddings()(input_ids)
    if pixel_values is not None:
        features = model.extract_feature(pixel_values).flatten(0, 1)
        embeds = embeds.masked_scatter((input_ids == model.img_context_token_id)[..., None], features)
    made: list[int] = []
    inputs, past = {"inputs_embeds": embeds}, None
    while len(made) < new_tokens and (not made or made[-1] not in ends):
        length = input_ids.shape[1] + len(made)
        positions = torch.arange(length)[None, 0 if past is None else -1 :]
        out = model.language_model(
            **inputs, attention_mask=torch.ones(1, length, dtype=torch.long), position_ids=positions,
            past_key_values=past,
        )  # fmt: skip
        made.append(int(out.logits[0, -1].argmax()))
        token = torch.tensor([[made[-1]]])
        if cached:
            inputs, past = {"input_ids": token}, out.past_key_values
        else:
            embeds = torch.cat([embeds, model.language_model.get_input_embeddings()(token)], dim=1)
            inputs = {"inputs_embeds": embeds}
    return made


def model_golden(case: str, clone: Path, upstream) -> None:
    """Stages, loss, greedy ids and a chat of one tiny config."""
    classes, tokenizer_class = upstream
    config = tiny_config(case)
    qwen3 = config["llm_config"]["model_type"].startswith("qwen3")
    config_class, model_class = classes[QWEN3 if qwen3 else "internvl_chat"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = random_checkpoint(Path(temporary) / "hf", config)
        tokenizer = tokenizer_class.from_pretrained(str(folder))
        # The released InternVL3 and 3.5 files, unlike this training code, take the template's message for a null.
        null_message = ("system_message",) if config.get("system_message", "") is None else ()
        fields = {k: v for k, v in config.items() if k not in ("model_type", "torch_dtype", *null_message)}
        model = model_class(config_class(**fields), use_flash_attn=False).float().eval()
        weights = {name: tensor.float() for name, tensor in load_file(str(folder / "model.safetensors")).items()}
        model.load_state_dict(weights, strict=True)
    # Upstream's Phi-3 can't work with this transformers' caches; no request here crosses the bound of its factors.
    model.language_model.config.use_cache = config["llm_config"]["model_type"] != "phi3"
    # As in the released InternVL3.5 files, whose chat is 2.5's; QWEN3's own keeps special tokens, for GPT-OSS alone.
    model.chat = types.MethodType(classes["internvl_chat"][1].chat, model)
    context = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    model.img_context_token_id = context
    start_request(model)
    pixels = torch.from_numpy(random_pixels(3, config["force_image_size"]))
    generator = np.random.default_rng(1)
    length = 90  # longer than dynamic_gqa's max_position_embeddings
    ids = generator.integers(3, 1000, (1, length))
    ids[0, 5 : 5 + 3 * model.num_image_token] = context
    labels = np.where(generator.random((1, length)) < 0.5, ids, -100)
    ids_t, labels_t = torch.from_numpy(ids), torch.from_numpy(labels)
    out: dict[str, np.ndarray] = {"input_ids": ids, "labels": labels}
    with torch.no_grad():
        vision = model.vision_model(pixel_values=pixels, output_hidden_states=True, return_dict=True)
        out["vision.embeddings"] = vision.hidden_states[0].numpy()
        out["vision.last_hidden_state"] = vision.last_hidden_state.numpy()
        out["extract_feature"] = model.extract_feature(pixels).numpy()
        flags = torch.ones(3, 1, dtype=torch.long)
        result = model(
            pixel_values=pixels, input_ids=ids_t, attention_mask=torch.ones_like(ids_t), image_flags=flags,
            labels=None if qwen3 else labels_t, return_dict=True,
        )  # fmt: skip
        # InternVL3.5's training code weighs samples over ranks; the mean over tokens is its language model's own loss.
        loss = model.language_model.loss_function(result.logits, labels_t, 1009) if qwen3 else result.loss
        out["logits"], out["loss"] = result.logits[:, ::6].numpy(), loss.numpy()
        short = ids_t[:, :40]
        out["greedy"] = np.array(greedy(model, pixels, short, NEW_TOKENS))
        out["greedy.text"] = np.array(greedy(model, None, ids_t[:, 20:], NEW_TOKENS))
        chats = chat_goldens(model, tokenizer, pixels)
    made_by = certificate(clone, case=case, weights_seed=0, pixels_seed=0, ids_seed=1)
    np.savez_compressed(HERE / f"{case}.npz", made_by=json.dumps(made_by), chats=json.dumps(chats), **out)


def chat_goldens(model, tokenizer, pixels) -> list[dict]:
    """Upstream's own `chat`, whose `generate` is the greedy loop: prompts' ids and answers."""
    prompts: list[list[int]] = []

    def generate(pixel_values=None, input_ids=None, attention_mask=None, eos_token_id=None, max_new_tokens=0):
        prompts.append(input_ids[0].tolist())
        return torch.tensor([greedy(model, pixel_values, input_ids, max_new_tokens, (eos_token_id,))])

    model.generate = generate
    chats = []
    for question, tiles, counts, history in texts.CHATS:
        answer = model.chat(
            tokenizer, pixels[:tiles] if tiles else None, question, {"max_new_tokens": NEW_TOKENS},
            history=None if history is None else [tuple(turn) for turn in history], num_patches_list=counts,
        )  # fmt: skip
        chats.append({"question": question, "tiles": tiles, "num_patches_list": counts, "history": history,
                      "prompt_ids": prompts.pop(), "answer": answer})  # fmt: skip
    return chats


def tokenizer_golden(clone: Path, tokenizer_class) -> None:
    """Ids and decoded texts of upstream's slow InternLM2 tokenizer on the bundled vocabulary."""
    tokenizer = tokenizer_class.from_pretrained(str(TOKENIZER))
    rows = []
    for text in texts.corpus():
        ids = tokenizer(text)["input_ids"]
        rows.append([text, ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)])
    content = {"made_by": certificate(clone, vocabulary="demo/checkpoints/internvl-tiny"), "rows": rows}
    (HERE / "internlm2_tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))


class RecordedImage:
    """Stands in for a picture: remembers what it is resized to, so that thousands of sizes take no time."""

    def __init__(self, width: int, height: int):
        self.size = width, height
        self.resized: list[tuple[int, int]] = []

    def resize(self, size):
        self.resized.append(size)
        return self

    def crop(self, box):
        return self


def grid_golden(clone: Path) -> None:
    """The grid and number of tiles upstream's `dynamic_preprocess` takes, for thousands of sizes and several limits."""
    source = ast.parse((clone / "internvl_chat/internvl/train/dataset.py").read_text())
    names = ("find_closest_aspect_ratio", "dynamic_preprocess")
    functions = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict = {}
    exec(compile(ast.Module(functions, []), "dataset.py", "exec"), space)
    generator = np.random.default_rng(0)
    sizes = [(w, h) for w in range(64, 3000, 192) for h in range(64, 3000, 192)]
    sizes += [(448 * i, 448 * j) for i in range(1, 8) for j in range(1, 8)]
    sizes += np.exp(generator.uniform(np.log(8), np.log(8000), (2000, 2))).astype(int).tolist()
    sizes += [(1, 1), (1, 5000), (5000, 1), (680, 680), (640, 480), (1280, 720), (1920, 1080), (4032, 3024)]
    limits = [(1, 12), (1, 6), (1, 24), (1, 1), (2, 2), (3, 8), (4, 12)]
    rows = np.zeros((len(sizes), len(limits), 3), np.uint8)
    for i, (width, height) in enumerate(sizes):
        for j, (least, most) in enumerate(limits):
            image = RecordedImage(width, height)
            tiles = space["dynamic_preprocess"](image, least, most, image_size=448, use_thumbnail=True)
            columns, grid_rows = (side // 448 for side in image.resized[0])
            rows[i, j] = columns, grid_rows, len(tiles)
    made_by = certificate(clone, sizes_seed=0, python=sys.version.split()[0])
    np.savez_compressed(
        HERE / "grids.npz", made_by=json.dumps(made_by), sizes=np.array(sizes, np.uint16), limits=np.array(limits),
        grids=rows,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of OpenGVLab/InternVL")
    parser.add_argument("--only", choices=(*GOLDEN, *MEMBERS), help="one model instead of everything")
    arguments = parser.parse_args()
    clone = arguments.upstream
    upstream = import_upstream(clone)
    if arguments.only:
        model_golden(arguments.only, clone, upstream)
        return
    grid_golden(clone)
    tokenizer_golden(clone, upstream[1])
    for case in (*GOLDEN, *MEMBERS):
        model_golden(case, clone, upstream)


if __name__ == "__main__":
    main()
