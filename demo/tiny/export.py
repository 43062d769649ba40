"""From a training run to the bundled Hugging Face folder: bfloat16 weights in upstream's layout, through `pd2hf`.

python -m demo.tiny.export RUN FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import paddle

from convert.streaming import convert
from demo.tiny.architecture import CONFIG
from paddle_internvl import InternVLChatConfig, InternVLChatModel
from paddle_internvl.preprocess.pixels import IMAGENET_MEAN, IMAGENET_STD

_PREPROCESSOR = {
    "crop_size": CONFIG["force_image_size"],
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 3,
    "size": CONFIG["force_image_size"],
}


def export(run: Path, folder: Path) -> None:
    """Write `folder` from the state of `run`; a folder that is there is replaced, but for its README.md."""
    model = InternVLChatModel(InternVLChatConfig(**CONFIG))
    state = paddle.load(str(run / "state.pdparams"))["student"]
    model.set_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    model.to(dtype="bfloat16")
    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").exists() else None
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        ours = Path(temporary) / "paddle"
        model.save_pretrained(ours)
        for file in (run / "tokenizer").iterdir():
            shutil.copyfile(file, ours / file.name)
        ends = {"_from_model_config": True, "eos_token_id": [5, 4]}  # <|im_end|>, <|im_start|>
        files = {"config.json": CONFIG, "generation_config.json": ends, "preprocessor_config.json": _PREPROCESSOR}
        for name, content in files.items():
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (ours / name).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        print(convert(ours, folder, to_paddle=False))
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    export(**vars(parser.parse_args()))
