"""Our side of the benchmark: every kind of stage run by the public model on Paddle.

In: a checkpoint folder, a kind and its numbers. Out: a function that does the work once and returns its result. Work
that is not to be timed is done before. Times nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from paddle_internvl import runtime, startup
from paddle_internvl.bench import inputs
from paddle_internvl.bench.training_stages import CLIP, LEARNING_RATE, LORA_DROPOUT, TRAINING_STEP

Run = Callable[[], object]
_PREFILL_CHUNK = 512  # tokens at once of a context that is not timed, so that they do not decide about the memory


class Ours:
    """The model on Paddle.

    Args:
        device: 'cpu' or 'gpu'; None: a card where there is one.
    Attributes:
        model: the loaded model; None before `load`.
    """

    def __init__(self, device: str | None = None):
        runtime.set_cpu_threads()
        startup.import_paddle()
        import paddle
        import paddlenlp.transformers  # noqa: F401  (slow to import, and no part of loading)

        import paddle_internvl  # noqa: F401
        from paddle_internvl.models import internvl  # noqa: F401

        self._paddle, self._device, self.model = paddle, runtime.choose_device(device), None

    def load(self, folder: Path, part: str, **options) -> None:
        """Load a checkpoint.

        Args:
            folder: the checkpoint.
            part: part of the model that the stages need; ignored here: all is loaded, as users do.
            options: further arguments of `from_pretrained`.
        """
        from paddle_internvl.modeling import InternVLChatModel

        self.model = InternVLChatModel.from_pretrained(str(folder), device=self._device, **options)
        self.model.img_context_token_id = inputs.image_token(self._vocabulary)

    def prepare(self, kind: str, **numbers) -> Run:
        """The function that does a stage of this kind once.

        Args:
            kind: name of a method below, without its underscore.
            numbers: its arguments.
        """
        run = getattr(self, f"_{kind}")(**numbers)

        def timed():
            with self._paddle.set_grad_enabled(kind == TRAINING_STEP):
                result = run()
            if self._device.startswith("gpu"):
                self._paddle.device.synchronize()
            return result

        return timed

    @staticmethod
    def array(result) -> np.ndarray:
        """The result of a run as an array."""
        return result.astype("float32").numpy() if hasattr(result, "numpy") else result

    @property
    def stored_bits(self) -> int:
        """Bits of a float weight as it is stored: bfloat16 weights may stay so on a CPU."""
        return 32 if self.model is None else 8 * self.model.language_model.model.embed_tokens.weight.element_size()

    @property
    def _vocabulary(self) -> int:
        return self.model.config.llm_config.vocab_size

    def _preprocess(self, width: int, height: int, max_num: int) -> Run:
        from paddle_internvl.media.images import load_image

        picture = inputs.picture(width, height)
        return lambda: load_image(picture, max_num=max_num)

    def _vision(self, tiles: int) -> Run:
        pixels = self._paddle.to_tensor(inputs.pixels(tiles, self.model.config.tile_side))
        return lambda: self.model.vision_model(pixels).last_hidden_state

    def _features(self, tiles: int) -> Run:
        pixels = self._paddle.to_tensor(inputs.pixels(tiles, self.model.config.tile_side))
        return lambda: self.model.extract_feature(pixels)

    def _projector(self, tiles: int) -> Run:
        config = self.model.config
        hidden = inputs.features(tiles, config.tile_sizes.patches, config.vision_config.hidden_size)
        hidden = self._paddle.to_tensor(hidden)
        return lambda: self.model.project(hidden)

    def _prefill(self, length: int, batch: int = 1) -> Run:
        ids = self._paddle.to_tensor(inputs.token_ids(length, self._vocabulary)).expand([batch, length])
        decoder = self.model.language_model
        return lambda: decoder(input_ids=ids, cache=decoder.new_cache(batch, length), last_only=True)

    def _decode(self, length: int, tokens: int, batch: int = 1) -> Run:
        decoder, every_id = self.model.language_model, inputs.token_ids(length + tokens, self._vocabulary)
        ids = self._paddle.to_tensor(every_id).expand([batch, length + tokens])
        cache = decoder.new_cache(batch, length + tokens)
        with self._paddle.no_grad():
            for start in range(0, length, _PREFILL_CHUNK):
                decoder(input_ids=ids[:, start : min(start + _PREFILL_CHUNK, length)], cache=cache, last_only=True)

        def run():
            cache.length = length
            for at in range(length, length + tokens):
                logits = decoder(input_ids=ids[:, at : at + 1], cache=cache)
            return logits

        return run

    def _clip(self, frames: int, width: int, height: int) -> Run:
        from paddle_internvl.media.video import load_video

        model, pictures = self.model, [inputs.picture(width, height)] * frames

        def run():
            pixels, _ = load_video(pictures, input_size=model.config.tile_side, num_segments=frames)
            visual = frames * model.num_image_token
            ids = self._paddle.to_tensor(inputs.prompt(64, visual, self._vocabulary))
            return model.generate(pixels, ids, max_new_tokens=1, ignore_eos=True)

        return run

    def _answer(self, width: int, height: int, text: int, tokens: int) -> Run:
        from paddle_internvl.media.images import load_image

        model, picture = self.model, inputs.picture(width, height)

        def run():
            pixels = load_image(picture, model.config.tile_side)
            visual = pixels.shape[0] * model.num_image_token
            ids = self._paddle.to_tensor(inputs.prompt(text, visual, self._vocabulary))
            return model.generate(pixels, ids, max_new_tokens=tokens, ignore_eos=True)

        return run

    def _training_step(self, recipe: dict, tiles: int, text: int) -> Run:
        from paddle_internvl.training.clipping import InPlaceClip
        from paddle_internvl.training.losses import sft_loss
        from paddle_internvl.training.recipe import Recipe
        from paddle_internvl.training.run import prepare

        startup.keep_freed_memory(startup.TRAINING_BLOCK)
        model = self.model
        prepare(model, Recipe.from_dict({**recipe, "lora_dropout": LORA_DROPOUT}))
        model.train()
        batch = inputs.training_batch(tiles, text, model.num_image_token, model.config.tile_side, self._vocabulary)
        adamw = self._paddle.optimizer.AdamW(
            LEARNING_RATE, parameters=[p for p in model.parameters() if not p.stop_gradient],
            grad_clip=InPlaceClip(CLIP),
        )  # fmt: skip

        def run():
            loss = sft_loss(model, batch)
            loss.backward()
            adamw.step()
            adamw.clear_grad(set_to_zero=False)
            return loss.detach()

        return run
