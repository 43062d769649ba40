"""Capturing stages: complete, in order, equal to what the model returns, and gone afterwards."""

import numpy as np
import paddle

from paddle_internvl.verification.capture import capture
from tests.random_checkpoints import random_pixels


def test_stages_of_a_forward(models, case):
    model = models[case]
    pixels = paddle.to_tensor(random_pixels(2, model.config.tile_side))
    slots = 2 * model.num_image_token
    ids = paddle.to_tensor([[1, 7, *[model.img_context_token_id] * slots, 9]])
    with paddle.no_grad():
        with capture(model) as stages:
            logits = model(pixels, ids).logits
        before = dict(stages)
        again = model.extract_feature(pixels).numpy()
    config = model.config
    run = config.select_layer % (config.vision_config.num_hidden_layers + 1)
    assert list(stages) == [
        "pixel_values", "vit.embed", *[f"vit.block.{i}" for i in range(run)], "shuffle", "projector", "embeds",
        *[f"dec.block.{i}" for i in range(config.llm_config.num_hidden_layers)], "dec.norm", "logits",
    ]  # fmt: skip
    np.testing.assert_array_equal(stages["logits"].numpy(), logits.numpy())
    np.testing.assert_allclose(stages["projector"].numpy(), again, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stages["embeds"].numpy()[0, 2 : 2 + slots], stages["projector"].flatten(0, 1).numpy())
    assert all(stages[name] is before[name] for name in stages)
