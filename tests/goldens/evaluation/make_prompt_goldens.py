"""Write `tests/goldens/evaluation/prompts/toolkits.json`: prompts that VLMEvalKit and upstream's scripts send.

    python -m tests.goldens.evaluation.make_prompt_goldens --vlmevalkit CLONE --upstream CLONE

CLONE are checkouts of https://github.com/open-compass/VLMEvalKit at 00e0cf87 and of
https://github.com/OpenGVLab/InternVL at 2410d1d. Needs pandas 2.3.3, numpy, pillow and pysubs2; every other module that
the toolkits import is a stand-in. The data are invented; their rows are in the golden, so that the test writes the same
files.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import sys
import tempfile
import types
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
from PIL import Image

FILE = Path(__file__).parent / "prompts" / "toolkits.json"
OPTIONS = {"A": "None", "B": "NA", "C": "a cat, a dog", "D": ""}
MCQ = [
    {"index": "0", "question": "What is shown?", **OPTIONS, "hint": "Look closely.", "answer": "C"},
    {"index": "1", "question": "图中有什么？", **OPTIONS, "answer": "A"},
    {"index": "2", "question": "Name it: 'x' {y} <image 1>?", "answer": "z"},
    {"index": "3", "question": "哪一个？ ", "answer": "z"},
    {"index": "4", "question": "Which one?", **OPTIONS, "hint": "提示", "D": "四", "answer": "C"},
]
PLAIN = [
    {"index": "0", "question": "How many?", "answer": "2"},
    {"index": "1", "question": " 有几个？\nQuestion: a ", "answer": "1"},
]
PICTURES = [(90, 50), (40, 160), (64, 64), (300, 70), (50, 49)]  # size of the picture of each row
PAIRS = [
    {"index": "validation_Art_1", "question": "<image 1> or <image 2>?", "A": "<image 1>", "B": "both", "answer": "A"},
    {"index": "validation_Art_2", "question": "See <image 1>.", "answer": "x"},
]
# Rows by benchmark; benchmarks of one kind share them.
ROWS = {
    **dict.fromkeys(
        ["MMBench_DEV_EN", "MMBench_TEST_CN_V11", "CCBench", "MMStar", "AI2D_TEST", "AI2D_TEST_NO_MASK",
         "SEEDBench_IMG", "RealWorldQA", "ScienceQA_TEST"], "MCQ"),
    **dict.fromkeys(
        ["MathVista_MINI", "HallusionBench", "OCRBench", "MMVet", "MME", "POPE", "DocVQA_VAL", "DocVQA_TEST",
         "InfoVQA_VAL", "InfoVQA_TEST", "ChartQA_TEST", "TextVQA_VAL", "GQA_TestDev_Balanced", "VizWiz", "COCO_VAL"],
        "PLAIN"),
    **dict.fromkeys(["MMMU_DEV_VAL", "MMMU_TEST"], "PAIRS"),
}  # fmt: skip
VIDEO_ROW = {
    "index": "0", "video": "v", "question": "What happens on Image-1?", "answer": "B", "candidates": "['A. x', 'B. y']",
    "prefix": "video/", "data_type": "video", "bound": "False", "video_path": "./video/v.mp4",
    "subtitle_path": "./subtitle/v.srt",
}  # fmt: skip
SUBTITLES = (
    "1\n00:00:00,500 --> 00:00:01,500\n<i>Hello</i> there\nfriend\n\n2\n00:00:01,200 --> 00:00:03.400\n\n3\n"
    "0:00:02,5 --> 00:00:09,000\n<font color=red>Bye</font> 42\n\n"
)
FRAMES, RATE = 40, 8.0  # of the clip
VARIANTS = {"plain": (False, False), "mpo": (True, False), "plain_cot": (False, True), "mpo_cot": (True, True)}
RECORDS = {  # of upstream's files, by benchmark
    "TextVQA_VAL": {"question": "What is written?", "question_id": 5, "answer": "x"},
    "VizWiz": {"question": "What is it?", "question_id": 5, "answer": "x"},
    "AI2D_TEST": {"question": "Which?\nA. x\nB. y\nAnswer.", "question_id": 5, "answer": "A"},
    "ChartQA_TEST": {"question": "Largest bar?", "question_id": 5, "answer": "x"},
    "MMVet": {"text": "Describe it.", "question_id": 5, "answer": "x"},
    "SEEDBench_IMG": {"text": "Which?\nA. x\nAnswer.", "question_id": 5, "answer": "A"},
    "POPE": {
        "text": "Is there a cat?\nAnswer the question using a single word or phrase.", "question_id": 5,
        "answer": "yes", "category": "random",
    },
    "ScienceQA_TEST": {"question": "Which?", "hint": "Read.", "choices": ["x", "y"], "answer": 1},
    "RefCOCO_val": {"sent": "the left cat", "bbox": [1, 2, 3, 4], "width": 90, "height": 50},
    "COCO_VAL": {},
    "MathVista_MINI": {"pid": "5", "query": "Hint: x\nQuestion: y\nChoices:\n(A) z", "question": "y", "answer": "z"},
}  # fmt: skip


STAND_INS = {  # packages that the toolkits import and no prompt needs
    "Levenshtein", "accelerate", "apted", "cv2", "datasets", "decord", "distance", "dotenv", "editdistance", "einops",
    "gradio", "huggingface_hub", "imageio", "internvl", "latex2sympy2", "lmdeploy", "lxml", "matplotlib", "nltk",
    "omegaconf", "openai", "peft", "portalocker", "pycocoevalcap", "pycocotools", "requests", "rich", "rouge", "scipy",
    "seaborn", "sentencepiece", "sklearn", "spacy", "sty", "sympy", "tabulate", "termcolor", "tiktoken",
    "timeout_decorator", "torch", "torchmetrics", "torchvision", "tqdm", "transformers", "validators", "xlsxwriter",
    "zss",
}  # fmt: skip


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stand-ins for packages."""

    def find_spec(self, name, path=None, target=None):
        """A module of this loader, for the packages of the list."""
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STAND_INS else None

    def create_module(self, spec):
        """A module whose every name is a mock."""
        module = MagicMock(spec_set=None)
        module.__spec__, module.__path__, module.__all__, module.__name__ = spec, [], [], spec.name
        module.__version__ = "4.40.0"
        return module

    def exec_module(self, module):
        """Nothing to run."""


def picture_bytes(size: tuple[int, int]) -> bytes:
    """A PNG file of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return stream.getvalue()


def picture_rows(name: str) -> list[dict[str, str]]:
    """Rows of a benchmark with their pictures; MMMU's first row has two."""
    rows = [dict(row) for row in {"MCQ": MCQ, "PLAIN": PLAIN, "PAIRS": PAIRS}[ROWS[name]]]
    encoded = [base64.b64encode(picture_bytes(size)).decode() for size in PICTURES]
    for number, row in enumerate(rows):
        row["image"], row["image_path"] = encoded[number], f"{number}.png"
    if ROWS[name] == "PAIRS":
        rows[0]["image"], rows[0]["image_path"] = repr(encoded[:2]), "['0.png', '1.png']"
    return rows


class Recorder:
    """Model that records what it is sent."""

    def chat(self, tokenizer, pixel_values, question, num_patches_list=None, **options):
        """Keep the question, with the mark that upstream's `chat` adds, and the tiles."""
        if pixel_values is not None and "<image>" not in question:
            question = "<image>\n" + question
        self.sent = question, num_patches_list
        return "answer"


class Tiles(list):
    """Tiles of a picture in place of a tensor."""

    def to(self, *_):
        """Itself."""
        return self

    def size(self, _axis):
        """Their number."""
        return len(self)


def vlmevalkit_goldens(clone: Path, folder: Path) -> dict:
    """Prompts of VLMEvalKit's wrapper by benchmark and variant, and tiles and limit of each row."""
    os.environ["LMUData"] = str(folder)  # noqa: SIM112 (the toolkit's own name)
    sys.path.insert(0, str(clone))
    for package in ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.internvl"):  # without the other models
        module = types.ModuleType(package)
        module.__path__ = [str(clone / package.replace(".", "/"))]
        sys.modules[package] = module
    datasets = importlib.import_module("vlmeval.dataset")
    wrapper = importlib.import_module("vlmeval.vlm.internvl.internvl_chat")
    utils = importlib.import_module("vlmeval.vlm.internvl.utils")

    def load_image(file, input_size=448, max_num=6, upscale=False):
        image = Image.open(file).convert("RGB")
        image = image.resize((image.width * 2, image.height * 2), Image.BILINEAR) if upscale else image
        return Tiles(utils.dynamic_preprocess(image, 1, max_num, input_size, use_thumbnail=True))

    wrapper.load_image = load_image
    model = wrapper.InternVLChat.__new__(wrapper.InternVLChat)
    model.model, model.tokenizer, model.version, model.device, model.kwargs = Recorder(), None, "V2.0", "cpu", {}

    def ask(dataset, name, line, mpo, cot):
        os.environ["USE_COT"] = "1" if cot else "0"
        model.use_mpo_prompt, model.use_cot = mpo, cot
        if model.use_custom_prompt(name):
            model.dump_image_func = dataset.dump_image
            message = model.build_prompt(line, dataset=name)
        else:
            message = dataset.build_prompt(line, video_llm=False)
        model.generate_inner(message, dataset=name)
        return model.model.sent

    goldens = {}
    for name in ROWS:
        cls = next(cls for cls in datasets.DATASET_CLASSES if name in cls.supported_datasets())
        table = pd.DataFrame(picture_rows(name)).fillna("").replace("", None)
        if name == "COCO_VAL":
            del table["question"]
        cls.prepare_tsv = lambda self, url, file_md5=None, table=table: table.copy()
        dataset = cls(dataset=name)
        lines = [dict(dataset.data.iloc[row]) for row in range(len(dataset.data))]
        golden = {key: [ask(dataset, name, line, *flags)[0] for line in lines] for key, flags in VARIANTS.items()}
        golden["tiles"] = [ask(dataset, name, line, False, False)[1] for line in lines]
        golden["max_num"] = model.max_num
        goldens[name] = golden
    return goldens | video_goldens(datasets, ask, folder)


def video_goldens(datasets, ask, folder: Path) -> dict:
    """Prompts of VLMEvalKit's video benchmarks, by benchmark and number of frames."""
    (folder / "subtitle").mkdir()
    (folder / "subtitle" / "v.srt").write_text(SUBTITLES)
    pictures = [folder / f"frame-{i}.png" for i in range(9)]
    for picture in pictures:
        picture.write_bytes(picture_bytes((8, 8)))
    goldens = {}
    sets = {
        "MVBench": (datasets.MVBench, "MVBench", {}),
        "MVBench_MP4_8frame": (datasets.MVBench_MP4, "MVBench_MP4", {}),
        "Video-MME": (datasets.VideoMME, "Video-MME", {"use_subtitle": False}),
        "Video-MME_subs": (datasets.VideoMME, "Video-MME", {"use_subtitle": True}),
        "MMBench-Video": (datasets.MMBenchVideo, "MMBench-Video", {}),
    }
    for name, (cls, dataset_name, fields) in sets.items():
        goldens[name] = {}
        for count in (1, 2, 9):
            dataset = cls.__new__(cls)
            vars(dataset).update(fields, nframe=count, fps=-1, pack=False, data_root=str(folder))
            frames = [str(picture) for picture in pictures[:count]]
            indices = [int(i * FRAMES / (count + 1)) for i in range(1, count + 1)]
            dataset.save_video_into_images = lambda line, frames=frames: frames
            found = (frames, indices, {"fps": RATE}) if dataset_name == "Video-MME" else frames
            dataset.save_video_frames = lambda *_, found=found: found
            row = pd.Series(VIDEO_ROW)
            goldens[name][str(count)] = ask(dataset, dataset_name, row, False, False)[0]
    return goldens


def upstream_goldens(clone: Path, folder: Path) -> dict:
    """Prompts of upstream's scripts by benchmark."""
    utils = importlib.import_module("vlmeval.vlm.internvl.utils")
    tiles = types.SimpleNamespace(
        build_transform=lambda **_: lambda image: image,
        dynamic_preprocess=lambda image, image_size, use_thumbnail, max_num, min_num=1: utils.dynamic_preprocess(
            image, min_num, max_num, image_size, use_thumbnail
        ),
    )
    sys.modules["internvl.train.dataset"] = tiles
    torch = importlib.import_module("torch")
    torch.utils.data.Dataset, torch.utils.data.sampler.Sampler, torch.stack = object, object, list
    picture = folder / "0.png"
    picture.write_bytes(picture_bytes(PICTURES[0]))
    common = {
        "input_size": 448, "dynamic_image_size": True, "use_thumbnail": True, "transform": lambda image: image,
        "root": str(folder),
    }  # fmt: skip
    phrase = "Answer the question using a single word or phrase."
    letter = "Answer with the option's letter from the given choices directly."
    vizwiz = "When the provided information is insufficient, respond with 'Unanswerable'. " + phrase
    goldens = {}

    def dataset_of(script: str, cls: str, **fields):
        module_name = script.replace("/", "_").removesuffix(".py")
        path = clone / "internvl_chat" / "eval" / script
        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        spec.loader.exec_module(module)
        dataset = getattr(module, cls).__new__(getattr(module, cls))
        vars(dataset).update(common, **fields)
        return module, dataset

    def add(name: str, question: str, cot: str | None = None) -> None:
        goldens[name] = {"prompt": question if "<image>" in question else f"<image>\n{question}"}
        if cot is not None:
            goldens[name]["cot"] = f"<image>\n{cot}"

    def lines(name: str) -> list[str]:
        return [json.dumps({"image": str(picture), **RECORDS[name]})]

    for name, prompt in (("TextVQA_VAL", phrase), ("ChartQA_TEST", phrase), ("VizWiz", vizwiz), ("AI2D_TEST", "")):
        fields = {"test": lines(name), "prompt": prompt, "few_shot": 0, "max_num": 6}
        _, dataset = dataset_of("vqa/evaluate_vqa.py", "VQADataset", **fields)
        add(name, dataset[0]["question"])
    _, dataset = dataset_of("mmvet/evaluate_mmvet.py", "VQADataset", data=lines("MMVet"), prompt="", max_num=6)
    add("MMVet", dataset[0][1])
    record = {"image": picture.name, **RECORDS["SEEDBench_IMG"]}
    _, dataset = dataset_of("seed/evaluate_seed.py", "MultipleChoiceDataset", data=[record], max_num=6)
    add("SEEDBench_IMG", dataset[0]["question"])
    module, dataset = dataset_of("pope/evaluate_pope.py", "VQADataset", data=lines("POPE"), prompt=phrase, max_num=6)
    plain = dataset[0]["question"]
    dataset.prompt = ""
    add("POPE", plain, module.COT_INSTRUCTION.format(question=dataset[0]["question"]))
    record = {"image": str(picture), **RECORDS["ScienceQA_TEST"]}
    module, dataset = dataset_of(
        "scienceqa/evaluate_scienceqa.py", "ScienceQADataset", data=[record], prompt=letter, max_num=6
    )
    plain = dataset[0]["question"]
    dataset.prompt = ""
    add("ScienceQA_TEST", plain, module.COT_INSTRUCTION.format(question=dataset[0]["question"]))
    _, dataset = dataset_of(
        "refcoco/evaluate_grounding.py", "RefCOCODataset", datas=lines("RefCOCO_val"), max_num=6,
        prompt="Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    )  # fmt: skip
    add("RefCOCO_val", dataset[0]["text"])
    add("COCO_VAL", "Provide a one-sentence caption for the provided image.")
    module, _ = dataset_of("mathvista/evaluate_mathvista.py", "MathVistaDataset")
    query = RECORDS["MathVista_MINI"]["query"]
    add("MathVista_MINI", query, module.COT_INSTRUCTION.format(question=query))
    for name, language in (("MMBench_DEV_EN", "en"), ("CCBench", "cn")):
        prompt = {"en": letter, "cn": "请直接回答选项字母。"}
        table = pd.DataFrame(picture_rows(name)).fillna("").replace("", None)
        _, dataset = dataset_of(
            "mmbench/evaluate_mmbench.py", "MMBenchDataset", df=table, prompt=prompt, language=language, max_num=6
        )
        goldens[name] = {"prompts": [f"<image>\n{dataset[row]['question']}" for row in range(len(table))]}
    pages = {"page_ids": ["p1", "p2"], "questionId": 5, "question": "Which page?", "answers": ["x"]}
    for page, size in zip(pages["page_ids"], PICTURES):
        (folder / f"{page}.jpg").write_bytes(picture_bytes(size))
    goldens["MPDocVQA_VAL"] = {"record": pages}
    for count in (1, 2):
        data = [{**pages, "page_ids": pages["page_ids"][:count]}]
        _, dataset = dataset_of(
            "mpdocvqa/evaluate_vqa.py", "VQADataset", test=data, prompt=phrase, max_num=18, total_max_num=64
        )
        item = dataset[0]
        question = item["question"] if "<image>" in item["question"] else f"<image>\n{item['question']}"
        goldens["MPDocVQA_VAL"][str(count)] = {"prompt": question, "tiles": item["num_patches_list"]}
    record = {"video": "v", "question": "What?", "candidates": ["x", "y"], "answer": "y", "start": 0, "end": 2}
    row = {"task_type": "Fine-grained Pose", "prefix": "", "data_type": "video", "bound": False, "data": record}
    module, dataset = dataset_of(
        "mvbench/evaluate_mvbench.py", "MVBenchDataset", num_segments=3, max_num=1, dynamic_image_size=False,
        data_list=[row],
        question_prompt="\nOnly give the best option.", prompt=importlib.import_module("vlmeval.dataset").MVBench.SYS,
    )  # fmt: skip
    dataset.decord_method = {"video": lambda path, bound: [Image.new("RGB", (8, 8))] * 3}
    goldens["MVBench"] = {"record": record, "prompt": dataset[0]["question"]}
    return goldens | {"MMMU_DEV_VAL": mmmu_golden(dataset_of)}


def mmmu_golden(dataset_of) -> dict:
    """Prompts and tiles of upstream's MMMU script, with options and without."""
    prompt = {
        "multiple-choice": "Answer with the option's letter from the given choices directly.",
        "open": "Answer the question using a single word or phrase.",
    }
    pictures = [Image.new("RGB", size) for size in PICTURES[:2]]
    images = {f"image_{i}": picture for i, picture in enumerate([*pictures, None, None, None, None, None], start=1)}
    golden = {"records": [], "prompts": [], "tiles": []}
    for options, kind in (("['x ', 'None']", "multiple-choice"), ("[]", "open")):
        record = {
            "id": f"validation_Art_{len(options)}", "question": " <image 1> or <image 2>? ", "options": options,
            "answer": "A", "question_type": kind,
        }  # fmt: skip
        fields = {"data": [record | images], "prompt": prompt, "max_num": 6}
        _, dataset = dataset_of("mmmu/evaluate_mmmu.py", "MMMUDataset", **fields)
        item = dataset[0]
        golden["records"].append(record)
        golden["prompts"].append(f"<image>\n{item['question']}")
        golden["tiles"].append(len(item["pixel_values"]))
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vlmevalkit", type=Path, required=True, metavar="CLONE")
    parser.add_argument("--upstream", type=Path, required=True, metavar="CLONE")
    arguments = parser.parse_args()
    sys.meta_path.insert(0, StandIns())
    with tempfile.TemporaryDirectory() as folder:
        vlmevalkit = vlmevalkit_goldens(arguments.vlmevalkit, Path(folder))
        upstream = upstream_goldens(arguments.upstream, Path(folder))
    about = {
        "vlmevalkit": "00e0cf87 (2024-12-26)", "upstream": "2410d1d (2025-09-22)", "made by": Path(__file__).name,
        **{name: version(name) for name in ("pandas", "numpy", "pillow", "pysubs2")}, "python": sys.version.split()[0],
        "data": "invented; only empty cells are missing",
    }  # fmt: skip
    rows = {name: picture_rows(name) for name in ("MMStar", "MathVista_MINI", "MMMU_DEV_VAL")}
    document = {
        "about": about, "rows": {ROWS[name]: table for name, table in rows.items()}, "kinds": ROWS, "video": VIDEO_ROW,
        "subtitles": SUBTITLES, "clip": {"frames": FRAMES, "fps": RATE}, "records": RECORDS, "vlmevalkit": vlmevalkit,
        "internvl": upstream,
    }  # fmt: skip
    FILE.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
