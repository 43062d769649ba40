"""Prompts and tile counts equal to those that VLMEvalKit and upstream's scripts send on invented data."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.pictures import open_pictures, tile_counts, tile_grids
from paddle_internvl.evaluation.prompts import prediction, render
from paddle_internvl.evaluation.readers import read_items

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation" / "prompts"
PROMPTS = json.loads((GOLDENS / "prompts.json").read_text(encoding="utf-8"))
TOOLKITS = json.loads((GOLDENS / "toolkits.json").read_text(encoding="utf-8"))
VARIANTS = {  # key of the golden -> style, chain of thought
    "plain": [("InternVL2", False), ("InternVL2_5", False)],
    "mpo": [("MPO", False)],
    "plain_cot": [("InternVL2_5", True)],
    "mpo_cot": [("MPO", True)],
}


@pytest.mark.parametrize("name", [name for name in PROMPTS if name in BENCHMARKS])
def test_prompts_equal_vlmevalkits(name):
    benchmark = BENCHMARKS[name]
    items = {item.index: item for item in read_items(benchmark, GOLDENS)}
    for golden in PROMPTS[name]["vlmevalkit"]:
        for key, variants in VARIANTS.items():
            for style, chain_of_thought in variants:
                prompt = render(items[golden["index"]], benchmark, style, "vlmevalkit", chain_of_thought)
                assert prompt.text == golden[key], (golden["index"], key)
                assert prompt.max_num == golden["max_num"]
        tiles = [grid.tiles for grid in tile_grids(prompt, open_pictures(prompt))]
        assert tiles == golden["num_patches"]
        prompt = render(items[golden["index"]], benchmark, rules="vlmevalkit")
        assert prompt.max_new_tokens == PROMPTS["generation"]["max_new_tokens"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Files with the rows of the goldens, by their kind."""
    folder = tmp_path_factory.mktemp("tables")
    files = {}
    for kind, rows in TOOLKITS["rows"].items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        files[kind] = folder / f"{kind}.tsv"
        with open(files[kind], "w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, columns, restval="", delimiter="\t")
            table.writeheader()
            table.writerows(rows)
    return files


@pytest.mark.parametrize("name", TOOLKITS["kinds"])
def test_prompts_of_every_data_set_equal_vlmevalkits(name, tables):
    golden, benchmark = TOOLKITS["vlmevalkit"][name], BENCHMARKS[name]
    items = list(read_items(benchmark, tables[TOOLKITS["kinds"][name]], pictures=True))
    if name == "COCO_VAL":
        items = [replace(item, question=benchmark.question) for item in items]
    for key, variants in VARIANTS.items():
        for style, chain_of_thought in variants:
            prompts = [render(item, benchmark, style, "vlmevalkit", chain_of_thought) for item in items]
            assert [prompt.text for prompt in prompts] == golden[key], key
    assert [tile_counts(prompt) for prompt in prompts] == golden["tiles"]
    assert {prompt.max_num for prompt in prompts} == {golden["max_num"]}


@pytest.mark.parametrize("name", ["MVBench", "MVBench_MP4_8frame", "Video-MME", "Video-MME_subs", "MMBench-Video"])
def test_prompts_about_clips_equal_vlmevalkits(name, tmp_path):
    benchmark = BENCHMARKS[name]
    file = tmp_path / benchmark.file
    with open(file, "w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, TOOLKITS["video"], delimiter="\t")
        table.writeheader()
        table.writerow(TOOLKITS["video"])
    (tmp_path / "subtitle").mkdir()
    (tmp_path / "subtitle" / "v.srt").write_text(TOOLKITS["subtitles"])
    frames = [Image.new("RGB", (8, 8), (i, i, i)) for i in range(TOOLKITS["clip"]["frames"])]
    (tmp_path / "video").mkdir()
    duration = round(1000 / TOOLKITS["clip"]["fps"])
    frames[0].save(tmp_path / "clip.png", save_all=True, append_images=frames[1:], duration=duration)
    (item,) = read_items(benchmark, file)
    item = replace(item, clip=replace(item.clip, path=tmp_path / "clip.png"))
    for count, text in TOOLKITS["vlmevalkit"][name].items():
        prompt = render(item, benchmark, frames=int(count))
        assert prompt.text == text
        assert len(open_pictures(prompt)) == int(count) and tile_counts(prompt) == [1] * int(count)


def record_item(name, folder):
    """The item of upstream's record of a benchmark, in its own file."""
    picture = folder / "images" / "0.png"
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", (90, 50)).save(picture)
    record = {"image": "0.png", **TOOLKITS["records"][name]}
    task = BENCHMARKS[name].upstream
    if task.reader != "jsonl":
        return Item("5", record.get("query", ""), None, pictures=(picture,))
    file = folder / Path(task.file).name / "x.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(record))
    (item,) = read_items(BENCHMARKS[name], file)
    return replace(item, pictures=(picture,))


@pytest.mark.parametrize("name", TOOLKITS["records"])
def test_prompts_equal_upstreams_scripts(name, tmp_path):
    golden, benchmark = TOOLKITS["internvl"][name], BENCHMARKS[name]
    item = record_item(name, tmp_path)
    assert render(item, benchmark, rules="internvl").text == golden["prompt"]
    if "cot" in golden:
        prompt = render(item, benchmark, rules="internvl", chain_of_thought=True)
        assert prompt.text == golden["cot"] and prompt.max_new_tokens == 4096


def test_prompts_and_tiles_of_documents_equal_upstreams_script():
    benchmark = BENCHMARKS["DocVQA_VAL"]
    items = {str(item.index): item for item in read_items(benchmark, GOLDENS)}
    for golden in PROMPTS["internvl"]["DocVQA_VAL"]:
        prompt = render(items[golden["id"]], benchmark, rules="internvl")
        assert (prompt.text, prompt.max_num, tile_counts(prompt)) == (
            golden["prompt"], golden["max_num"], golden["tiles"],
        )  # fmt: skip
        assert prompt.max_new_tokens == golden["generation"]["max_new_tokens"]


@pytest.mark.parametrize("name", ["MMBench_DEV_EN", "CCBench"])
def test_prompts_of_mmbench_equal_upstreams_script(name, tables):
    items = read_items(BENCHMARKS[name], tables["MCQ"])
    prompts = [render(item, BENCHMARKS[name], rules="internvl").text for item in items]
    assert prompts == TOOLKITS["internvl"][name]["prompts"]


def test_prompts_with_several_pictures_equal_upstreams_scripts(tmp_path):
    golden = TOOLKITS["internvl"]["MPDocVQA_VAL"]
    pictures = []
    for page, size in zip(golden["record"]["page_ids"], [(90, 50), (40, 160)]):
        pictures.append(tmp_path / f"{page}.png")
        Image.new("RGB", size).save(pictures[-1])
    for count in (1, 2):
        item = Item(5, golden["record"]["question"], None, pictures=tuple(pictures[:count]))
        prompt = render(item, BENCHMARKS["MPDocVQA_VAL"], rules="internvl")
        assert {"prompt": prompt.text, "tiles": tile_counts(prompt)} == golden[str(count)]
    golden, benchmark = TOOLKITS["internvl"]["MMMU_DEV_VAL"], BENCHMARKS["MMMU_DEV_VAL"]
    for record, text, tiles in zip(golden["records"], golden["prompts"], golden["tiles"]):
        file = tmp_path / "mmmu.jsonl"
        file.write_text(json.dumps({"image": [path.name for path in pictures], **record}))
        (item,) = read_items(benchmark, file)
        prompt = render(item, benchmark, rules="internvl")
        assert prompt.text == text and prompt.joined and sum(tile_counts(prompt)) == tiles


def test_prompts_of_mvbench_equal_upstreams_script(tmp_path):
    golden = TOOLKITS["internvl"]["MVBench"]
    (tmp_path / "fine_grained_pose.json").write_text(json.dumps([golden["record"]]))
    (item,) = read_items(BENCHMARKS["MVBench"], tmp_path)
    prompt = render(item, BENCHMARKS["MVBench"], rules="internvl", frames=3)
    assert prompt.text == golden["prompt"] and prompt.max_new_tokens == 1000 and tile_counts(prompt) == [1, 1, 1]
    assert len(render(item, BENCHMARKS["MVBench"], rules="internvl").limits) == 16


@pytest.mark.parametrize(
    ("name", "style", "chain_of_thought", "answer", "expected"),
    [
        ("MMStar", "MPO", False, "Reasons.\nfinal answer: B \nAnswer: C", "B"),
        ("HallusionBench", "MPO", False, "no marker ", "no marker"),
        ("MMStar", "InternVL2_5", False, "Answer: B ", "Answer: B "),
        ("OCRBench", "MPO", False, "Final answer: B", "Final answer: B"),
        ("AI2D_TEST", "MPO", False, "Answer: B", "Answer: B"),
        ("AI2D_TEST", "MPO", True, "Answer: B", "B"),
        ("AI2D_TEST", "InternVL2_5", True, "Answer: B", "Answer: B"),
    ],
)
def test_the_final_answer_of_a_reasoning_model_is_the_prediction(name, style, chain_of_thought, answer, expected):
    assert prediction(answer, BENCHMARKS[name], style, "vlmevalkit", chain_of_thought) == expected


WILD = st.text(st.sampled_from("aA.:\n<image>[]{}'\\\t 图Answer Final"), max_size=60)


@settings(max_examples=30, deadline=None)
@given(question=WILD, hint=WILD, options=st.lists(WILD, max_size=4), answer=WILD)
def test_wild_texts_are_rendered_and_post_processed(question, hint, options, answer):
    item = Item(0, question, None, dict(zip("ABCD", options)), hint, pictures=("a.png", "b.png"))
    for name in ("MMStar", "HallusionBench", "MathVista_MINI", "MME"):
        benchmark = BENCHMARKS[name]
        for style, chain_of_thought in (("MPO", True), ("InternVL2_5", False)):
            text = render(item, benchmark, style, "vlmevalkit", chain_of_thought).text
            assert text.startswith("Image-1: <image>\nImage-2: <image>\n") and question.strip() in text
            assert prediction(answer, benchmark, style, "vlmevalkit", chain_of_thought) in answer
