"""InternVL 2 to 3.5 on PaddlePaddle, through PaddleNLP.

    import paddle_internvl                      # from here on PaddleNLP's Auto classes know InternVL
    from paddlenlp.transformers import AutoModel, AutoTokenizer

Importing this package imports neither Paddle nor PaddleNLP (they take seconds): names are loaded when they are first
used, and the registration runs once PaddleNLP is there, be it before or after this import.
"""

from importlib import import_module

from paddle_internvl import paddlenlp_import, runtime

__version__ = "0.1.0"

_HOME = {  # public name -> module
    "AutoModel": "auto",
    "AutoTokenizer": "auto",
    "AutoConfig": "auto",
    "InternVLChatModel": "modeling",
    "InternVisionModel": "modeling",
    "InternLM2ForCausalLM": "modeling",
    "InternVLChatConfig": "configuration",
    "InternVisionConfig": "configuration",
    "InternLM2Config": "configuration",
    "GenerationConfig": "generation.config",
    "prepare_for_inference": "checkpoints.preparation",
    "load_image": "media.images",
    "load_video": "media.video",
    "get_index": "preprocess.frames",
    "build_transform": "preprocess.pixels",
    "dynamic_preprocess": "preprocess.tiles",
    "find_closest_aspect_ratio": "preprocess.grid",
    "pipeline": "chat.pipeline",
    "EngineConfig": "engine.config",
    "TurbomindEngineConfig": "chat.lmdeploy",
    "PytorchEngineConfig": "chat.lmdeploy",
    "ChatTemplateConfig": "chat.lmdeploy",
    "IMAGE_TOKEN": "prompt.special_tokens",
    "parse_boxes": "prompt.grounding",
    "draw_boxes": "preprocess.drawing",
    "split_model": "parallel.placement",
    "run_rank": "engine.tensor_parallel_runner",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


runtime.set_cpu_threads()  # only an environment variable, which Paddle reads when it is imported
paddlenlp_import.install_hook()
