"""LMDeploy's `pipeline` over a model: prompts in the forms of its users in, `Response`s out.

One engine in a thread of its own answers all calls: several threads may call a pipeline, their prompts are batched, and
later rounds of a conversation reuse the KV cache of earlier ones. Where LMDeploy's versions differ, the one on the
model cards (0.6) counts: pictures stand before the text unless `IMAGE_TOKEN` marks their place, and `do_sample` is off
by default. Unlike either, n > 1 gives n answers (`Response.alternatives`), stop_words end an answer beside the
template's own stop, and a setting that is not supported is an error.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddle_internvl.chat.lmdeploy import ChatTemplateConfig
from paddle_internvl.chat.messages import answer_messages, stream_responses
from paddle_internvl.checkpoints.hub import folder_of
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.engine.response import History, Response
from paddle_internvl.prompt.messages import Dialogue


@dataclass
class Session:
    """A conversation with a pipeline.

    Attributes:
        messages: OpenAI-style messages of all turns.
        history: (question, answer) pairs.
        response: the last answer.
    """

    messages: list[dict] = field(default_factory=list)
    history: History = field(default_factory=History)
    response: Response | None = None

    def __str__(self) -> str:
        return str(self.history)

    def _repr_html_(self) -> str:
        return self.history._repr_html_()


class Pipeline:
    """LMDeploy's pipeline: see `pipeline`. A context manager; `close` stops the engine's thread and frees the model.

    Thread-safe: any thread may call a pipeline. A `Session` is used by one thread at a time.
    """

    def __init__(
        self,
        model_path,
        backend_config: EngineConfig | None = None,
        system: str | None = None,
        chat_template_config: ChatTemplateConfig | None = None,
        thinking: bool = False,
        keep_thoughts: bool = True,
        **hub_options,
    ):
        c = self.config = EngineConfig() if backend_config is None else backend_config
        self.model = _load(model_path, c, hub_options) if isinstance(model_path, (str, Path)) else model_path
        if chat_template_config is not None:
            if system is not None:
                raise ValueError("system and chat_template_config exclude each other")
            system = chat_template_config.system_message(self.model.conv_template)
        self._engine = EngineThread(engine_of(self.model, self.model.tokenizer, c))
        self._engine.start()
        self._close_engine = weakref.finalize(self, self._engine.close)
        self._prompt_options = {
            "system": system, "max_num": c.max_num, "max_total_tiles": c.max_total_tiles, "thinking": thinking,
            "keep_thoughts": keep_thoughts,
        }  # fmt: skip

    def __call__(self, prompts, gen_config=None, use_tqdm: bool = False, **prompt_options) -> Response | list[Response]:
        """Answer a prompt, or a list of them in batches, in their order.

        Args:
            prompts: text; (text, picture or pictures); OpenAI-style messages; or a list of any of these. Pictures are
                PIL images, paths, URLs or data URLs.
            gen_config: a `GenerationConfig` or dict, or one for each prompt.
            use_tqdm: show progress.
            prompt_options: `thinking`, `keep_thoughts`, `system`, tile limits of `chat.messages.parse`, in the place of
                the pipeline's.
        Returns:
            One `Response`, or a list of them.
        Raises:
            ValueError: a prompt of no such form; see `chat.messages.parse`.
        """
        if _is_single(prompts):
            return self._answer([_messages(prompts)], gen_config, prompt_options)[0]
        conversations = [_messages(prompt) for prompt in prompts]
        configs = gen_config if isinstance(gen_config, (list, tuple)) else [gen_config] * len(conversations)
        if len(configs) != len(conversations):
            raise ValueError(f"{len(conversations)} prompts but {len(configs)} generation configs")
        from tqdm import tqdm

        responses: list[Response] = []
        with tqdm(total=len(conversations), disable=not use_tqdm) as bar:
            while len(responses) < len(conversations):  # in batches: the tiles of all prompts may not fit into memory
                first = len(responses)
                batch = slice(first, first + 4 * self.config.max_batch_size)
                answered = self._answer(conversations[batch], configs[batch], prompt_options)
                responses += [replace(response, index=first + i) for i, response in enumerate(answered)]
                bar.update(len(answered))
        return responses

    def stream_infer(self, prompts, gen_config=None, **prompt_options) -> Iterator[Response]:
        """Stream answers to prompts; all prompts are generated in one batch.

        Args:
            prompts: as in a call.
            gen_config: as in a call.
            prompt_options: as in a call.
        Returns:
            An iterator of `Response`s with new text, thoughts and index of their prompt; the last of each prompt has
            the finish_reason.
        """
        conversations = [_messages(prompt) for prompt in ([prompts] if _is_single(prompts) else prompts)]
        yield from self._stream(conversations, gen_config, prompt_options)

    def chat(
        self, prompt, session: Session | None = None, gen_config=None, stream_response: bool = False, **prompt_options
    ):
        """Answer one more turn of a conversation.

        Args:
            prompt: text, or (text, pictures).
            session: the conversation; None: a new one.
            gen_config: a `GenerationConfig` or dict.
            stream_response: return an iterator of `Response`s instead; the session is extended when it ends.
            prompt_options: as in a call.
        Returns:
            The session, with `.response` and `.history`.
        """
        session = Session() if session is None else session
        (question,) = _messages(prompt)
        messages = [*session.messages, question]
        if stream_response:
            return self._stream_turn(session, messages, prompt, gen_config, prompt_options)
        (response,) = self._answer([messages], gen_config, prompt_options)
        return _extend(session, messages, prompt, response)

    def session(self) -> Session:
        """An empty conversation."""
        return Session()

    def close(self) -> None:
        """Stop the engine's thread and release the model; running answers end with an `EngineClosedError`."""
        self._close_engine()
        self.model = self._engine = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def _answer(self, conversations, gen_config, prompt_options) -> list[Response]:
        options = {**self._prompt_options, **prompt_options}
        return answer_messages(*self._request(conversations, gen_config), **options)

    def _stream(self, conversations, gen_config, prompt_options) -> Iterator[Response]:
        options = {**self._prompt_options, **prompt_options}
        return stream_responses(*self._request(conversations, gen_config), **options)

    def _request(self, conversations, gen_config) -> tuple:
        if self.model is None:
            raise ValueError("the pipeline is closed")
        length = self._engine.engine.config.session_len
        return self.model, self.model.tokenizer, conversations, gen_config, length, self._engine

    def _stream_turn(self, session, messages, prompt, gen_config, prompt_options) -> Iterator[Response]:
        text = reasoning = ""
        for response in self._stream([messages], gen_config, prompt_options):
            text += response.text
            reasoning += response.reasoning or ""
            yield response
        _extend(session, messages, prompt, replace(response, text=text, reasoning=reasoning or None))


def pipeline(
    model_path,
    backend_config: EngineConfig | None = None,
    system: str | None = None,
    *,
    chat_template_config: ChatTemplateConfig | None = None,
    thinking: bool = False,
    keep_thoughts: bool = True,
    log_level: str | None = None,
    trust_remote_code: bool = False,
    **hub_options,
) -> Pipeline:
    """A pipeline over a checkpoint folder or hub id: call it with prompts.

    Args:
        model_path: folder, hub id, or a loaded model, for which the fields of `backend_config` that load one have no
            meaning.
        backend_config: an `EngineConfig`; `TurbomindEngineConfig` and `PytorchEngineConfig` make one.
        system: the system message; None: the checkpoint's, "": none.
        chat_template_config: LMDeploy's `ChatTemplateConfig`, for the system message.
        thinking: ask for thoughts before every answer; they are the `reasoning` of a `Response`.
        keep_thoughts: whether the thoughts of earlier answers are part of the next prompt.
        log_level: of LMDeploy; ignored: the logger 'paddle_internvl' is the program's to set up.
        trust_remote_code: of LMDeploy; ignored: no code of a checkpoint is run.
        hub_options: `hub`, `revision`, `cache_dir`, ... of `hub.folder_of`.
    Returns:
        A `Pipeline`, its model loaded and its KV cache allocated.
    Raises:
        ValueError: see `from_pretrained` and `engine_of`.
        TypeError: an unknown option.
    Source: LMDeploy `pipeline`, as the model cards use it.
    """
    return Pipeline(model_path, backend_config, system, chat_template_config, thinking, keep_thoughts, **hub_options)


def _load(model_path: str | Path, config: EngineConfig, hub_options: dict):
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(
        str(folder_of(model_path, **hub_options)), dtype=None if config.dtype == "auto" else config.dtype,
        device=config.device, load_in_8bit=config.load_in_8bit, load_in_4bit=config.load_in_4bit,
        quantize_head=config.quantize_head, int8_activations=config.int8_activations, adapter=config.adapter,
    )  # fmt: skip


def _is_single(prompts) -> bool:
    return isinstance(prompts, (str, tuple)) or (
        isinstance(prompts, list) and isinstance(next(iter(prompts), None), dict)
    )


def _messages(prompt) -> list[dict] | Dialogue:
    """OpenAI-style messages of a prompt in one of LMDeploy's forms; a `Dialogue` is returned as it is."""
    if isinstance(prompt, Dialogue):
        return prompt
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, tuple) and len(prompt) == 2:
        text, pictures = prompt if isinstance(prompt[0], str) else reversed(prompt)  # newer LMDeploys take either order
        pictures = pictures if isinstance(pictures, (list, tuple)) else [pictures]
        if isinstance(text, str):
            content = [{"type": "image", "image": picture} for picture in pictures]
            return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    if isinstance(prompt, list) and prompt and all(isinstance(message, dict) for message in prompt):
        return prompt
    raise ValueError(
        f"a prompt is text, (text, pictures) or messages with role and content, not {type(prompt).__name__}"
    )


def _extend(session: Session, messages: Sequence[dict], prompt, response: Response) -> Session:
    session.messages = [*messages, response.message]
    session.history.append((prompt if isinstance(prompt, str) else messages[-1]["content"][-1]["text"], response.text))
    session.response = response
    return session
