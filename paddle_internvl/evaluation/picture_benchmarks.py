"""The benchmarks whose questions are about pictures: VLMEvalKit's data sets of December 2024 and upstream's tasks."""

from paddle_internvl.evaluation.benchmark import Benchmark, UpstreamTask
from paddle_internvl.evaluation.prompt_forms import PHRASE

_LINE_PHRASE = "\n" + PHRASE
_YES_NO_PHRASE = " Please answer yes or no. " + PHRASE


def _vqa(name: str, scorer: str, max_num: int = 6, **columns) -> Benchmark:
    """A row of questions with a short answer."""
    scorers = {"vlmevalkit": scorer} | columns.pop("scorers", {})
    columns = {"file": f"{name}.tsv", "suffix": _LINE_PHRASE} | columns
    return Benchmark(name, "VQA", max_num, scorers, **columns)


def _choice(name: str, scorer: str = "choice", rows: int | None = None, **columns) -> Benchmark:
    """A row of multiple-choice questions."""
    scorers = {"vlmevalkit": scorer} | columns.pop("scorers", {})
    columns = {"max_num": 6, "judge": "choice", "file": f"{name}.tsv"} | columns
    return Benchmark(name, "MCQ", scorers=scorers, rows=rows, **columns)


def _mmbench(name: str, upstream: str | None = None, task: str = "", **columns) -> Benchmark:
    """A row of MMBench, whose questions are asked once for every rotation of the options."""
    form = "choice_zh" if "_CN" in name or name == "CCBench" else "choice"
    task = upstream and UpstreamTask(task, f"mmbench/{upstream}.tsv", form, reader="tsv")
    scorers = {"internvl": "circular"} if upstream else {}  # in place of MMBench's server, which is closed
    return _choice(name, "circular", scorers=scorers, upstream=task, **columns)


_CAPTION_QUESTION = (
    "Please describe this image in general. Directly provide the description, do not include prefix like "
    '"This image depicts". '
)
_MPO = (
    _mmbench("MMBench_DEV_EN_V11", cards={"mpo": "MMBench v1.1"}),
    _mmbench("MMBench_DEV_CN_V11"),
    _mmbench("MMBench_TEST_EN_V11", cards={"mpo": "MMBench v1.1"}),
    _mmbench("MMBench_TEST_CN_V11", cards={"mpo": "MMBench v1.1"}),
    _choice("MMStar", rows=1500, reasoning_default=True, cards={"mpo": "MMStar"}),
    _choice(
        "MMMU_DEV_VAL", "mmmu", rows=1050, max_num=12, doubled=True, headline="validation/Overall",
        scorers={"internvl": "internvl_mmmu"}, cards={"mpo": "MMMU", "internvl2": "MMMU"},
        upstream=UpstreamTask("mmmu-val", "MMMU", "mmmu", max_new_tokens=10, reader="parquet"),
    ),
    _vqa(
        "MathVista_MINI", "mathvista", scorers={"internvl": "internvl_mathvista"}, judge="mathvista", rows=1000,
        cards={"mpo": "MathVista", "internvl2": "MathVista"}, suffix="",
        upstream=UpstreamTask("mathvista-testmini", "MathVista", "query", 6, 4096, True, "parquet"),
    ),
    Benchmark(
        "HallusionBench", "Y/N", 6, {"vlmevalkit": "hallusionbench"}, judge="yes_no", rows=951,
        cards={"mpo": "HallusionBench", "internvl2": "HallBench"}, file="HallusionBench.tsv", suffix=_YES_NO_PHRASE,
        reasoning_default=True, headline="mean of aAcc, fAcc and qAcc",
    ),
    _choice(
        "AI2D_TEST", rows=3088, scorers={"internvl": "internvl_choice"}, cards={"mpo": "AI2D", "internvl2": "AI2D"},
        upstream=UpstreamTask("vqa-ai2d-test", "ai2diagram/test_vlmevalkit.jsonl", "as_is", max_new_tokens=10),
    ),
    _vqa(
        "OCRBench", "ocrbench", 24, rows=1000, cards={"mpo": "OCRBench", "internvl2": "OCRBench"},
        reasoning_default=True, headline="Final Score",
    ),
    _vqa(
        "MMVet", "mmvet", judge="mmvet", rows=218, suffix="", reasoning_allowed=False,
        cards={"mpo": "MMVet", "internvl2": "MMVet"},
        upstream=UpstreamTask("mmvet", "mm-vet/llava-mm-vet.jsonl", "space", max_new_tokens=1000),
    ),
)  # fmt: skip

_CHOICES = (
    _mmbench("MMBench_DEV_EN", "mmbench_dev_en_20231003", "mmbench-dev-en"),
    _mmbench("MMBench_DEV_CN", "mmbench_dev_cn_20231003", "mmbench-dev-cn"),
    _mmbench("MMBench_TEST_EN", "mmbench_test_en_20231003", "mmbench-test-en", cards={"internvl2": "MMBench-EN"}),
    _mmbench("MMBench_TEST_CN", "mmbench_test_cn_20231003", "mmbench-test-cn", cards={"internvl2": "MMBench-CN"}),
    _mmbench("CCBench", "CCBench_legacy", "ccbench-dev", rows=510, cards={"internvl2": "CCBench"}),
    _choice(
        "MMMU_TEST", "mmmu", max_num=12, doubled=True,
        upstream=UpstreamTask("mmmu-test", "MMMU", "mmmu", max_new_tokens=10, reader="parquet"),
    ),
    _choice("MMMU_Pro_10c", "mmmu", rows=1730, doubled=True),
    _choice("AI2D_TEST_NO_MASK", rows=3088),
    _choice(
        "SEEDBench_IMG", scorers={"internvl": "internvl_seed"}, cards={"internvl2": "SEED-Image"},
        upstream=UpstreamTask("seed", "SEED/seed.jsonl", "as_is"),
    ),
    _choice("RealWorldQA", rows=765, cards={"internvl2": "RealWorldQA"}),
    _choice("ScienceQA_VAL"),
    _choice(
        "ScienceQA_TEST", scorers={"internvl": "internvl_scienceqa"},
        upstream=UpstreamTask(
            "scienceqa", "scienceqa/scienceqa_test_img.jsonl", "stripped_choice", chain_of_thought=True
        ),
    ),
)  # fmt: skip

_YES_NO = (
    Benchmark(
        "MME", "Y/N", 6, {"vlmevalkit": "mme", "internvl": "internvl_mme"}, judge="yes_no", rows=2374, file="MME.tsv",
        cards={"internvl2": "MME"}, suffix=f" {PHRASE}", headline="perception + reasoning",
        upstream=UpstreamTask("mme", "mme", "phrase", max_new_tokens=20, reader="mme"),
    ),
    Benchmark(
        "POPE", "Y/N", 6, {"vlmevalkit": "pope", "internvl": "internvl_pope"}, judge="yes_no", file="POPE.tsv",
        headline="Overall F1",
        upstream=UpstreamTask(
            "pope", "pope/llava_pope_test.jsonl", "yes_no", chain_of_thought=True, annotation="pope/coco"
        ),
    ),
)  # fmt: skip


def _document(
    name: str, upstream: str, task: str, max_num: int, rows: int, annotation: str | None = None, **columns
) -> Benchmark:
    """A row of questions about documents, scored by edit distance (ANLS)."""
    task = UpstreamTask(task, f"{upstream}.jsonl", "phrase", max_num, annotation=annotation)
    return _vqa(name, "anls", max_num, scorers={"internvl": "internvl_anls"}, rows=rows, upstream=task, **columns)


_ACCURACY = {"internvl": "internvl_vqa_accuracy"}
_ANSWERS = (
    _document("DocVQA_VAL", "docvqa/val", "vqa-docvqa-val", 18, 5349, "docvqa/val/val_v1.0.json"),
    _document("DocVQA_TEST", "docvqa/test", "vqa-docvqa-test", 18, 5188, cards={"internvl2": "DocVQA"}),
    _document(
        "InfoVQA_VAL", "infographicsvqa/val", "vqa-infovqa-val", 24, 2801,
        "infographicsvqa/infographicsVQA_val_v1.0_withQT.json",
    ),
    _document("InfoVQA_TEST", "infographicsvqa/test", "vqa-infovqa-test", 24, 3288, cards={"internvl2": "InfoVQA"}),
    _vqa(
        "MPDocVQA_VAL", "anls", 18, scorers={"internvl": "internvl_anls"}, file=None,
        upstream=UpstreamTask("vqa-mpdocvqa-val", "mpdocvqa/val.json", "pages", 18, reader="pages"),
    ),
    _vqa(
        "MPDocVQA_TEST", "anls", 18, scorers={"internvl": "internvl_anls"}, file=None,
        upstream=UpstreamTask("vqa-mpdocvqa-test", "mpdocvqa/test.json", "pages", 18, reader="pages"),
    ),
    _vqa(
        "ChartQA_TEST", "relaxed", 12, scorers={"internvl": "internvl_relaxed"}, rows=2500,
        cards={"internvl2": "ChartQA"}, headline="mean of test_human and test_augmented",
        upstream=UpstreamTask("vqa-chartqa-test", "chartqa", "phrase", 12, parts=("test_human", "test_augmented")),
    ),
    _vqa(
        "TextVQA_VAL", "vqa_accuracy", scorers=_ACCURACY, rows=5000, cards={"internvl2": "TextVQA"},
        upstream=UpstreamTask(
            "vqa-textvqa-val", "textvqa/textvqa_val.jsonl", "phrase", 6, 10,
            annotation="textvqa/textvqa_val_annotations.json",
        ),
    ),
    _vqa(
        "GQA_TestDev_Balanced", "exact", scorers={"internvl": "internvl_gqa"}, rows=12578,
        upstream=UpstreamTask(
            "vqa-gqa-testdev", "gqa/llava_gqa_testdev_balanced_qwen_format.jsonl", "phrase", 6, 10
        ),
    ),
    _vqa(
        "OKVQA", "vqa_accuracy", scorers=_ACCURACY, file=None,
        upstream=UpstreamTask(
            "vqa-okvqa-val", "okvqa/okvqa_val.jsonl", "phrase", 6, 10,
            annotation="okvqa/mscoco_val2014_annotations.json",
        ),
    ),
    _vqa(
        "VizWiz", "vqa_accuracy", scorers=_ACCURACY,
        upstream=UpstreamTask(
            "vqa-vizwiz-val", "vizwiz/vizwiz_val.jsonl", "vizwiz", 6, 10,
            annotation="vizwiz/vizwiz_val_annotations.json",
        ),
    ),
)  # fmt: skip

_REFCOCO = {  # name -> column of the card, rows, stem of upstream's file
    "RefCOCO_val": ("RefCOCO (val)", 10834, "refcoco_val"),
    "RefCOCO_testA": ("RefCOCO (testA)", 5657, "refcoco_testA"),
    "RefCOCO_testB": ("RefCOCO (testB)", 5095, "refcoco_testB"),
    "RefCOCO+_val": ("RefCOCO+ (val)", 10758, "refcoco+_val"),
    "RefCOCO+_testA": ("RefCOCO+ (testA)", 5726, "refcoco+_testA"),
    "RefCOCO+_testB": ("RefCOCO+ (testB)", 4889, "refcoco+_testB"),
    "RefCOCOg_val": ("RefCOCO-g (val)", 4896, "refcocog_val"),
    "RefCOCOg_test": ("RefCOCO-g (test)", 9602, "refcocog_test"),
}


def _refcoco(name: str, card: str, rows: int, task: str, file: str, parts: tuple[str, ...] = ()) -> Benchmark:
    """A row of sentences whose boxes are looked for."""
    scorers = {"vlmevalkit": "refcoco", "internvl": "internvl_refcoco"}
    upstream = UpstreamTask(task, file, "grounding", parts=parts)
    return Benchmark(
        name, "GROUNDING", 6, scorers, rows=rows, cards={"internvl2": card}, file="RefCOCO.tsv",
        headline="mean of the splits", upstream=upstream,
    )  # fmt: skip


_GROUNDING = (
    _refcoco("RefCOCO", "avg.", 57457, "refcoco", "refcoco", tuple(part for _, _, part in _REFCOCO.values())),
    *(
        _refcoco(name, card, rows, part.replace("_", "-"), f"refcoco/{part}.jsonl")
        for name, (card, rows, part) in _REFCOCO.items()
    ),
)


def _captions(name: str, file: str | None, rows: int, task: str, upstream_file: str) -> Benchmark:
    """A row of pictures that are described in a sentence."""
    scorers = {"vlmevalkit": "captions", "internvl": "internvl_captions"}
    task = UpstreamTask(task, upstream_file, "caption", max_new_tokens=30, reader="captions")
    return Benchmark(
        name, "CAPTION", 6, scorers, rows=rows, file=file, question=_CAPTION_QUESTION, headline="CIDEr", upstream=task
    )


_CAPTIONS = (
    _captions("COCO_VAL", "COCO_VAL.tsv", 5000, "caption-coco", "coco/annotations/coco_karpathy_test.json"),
    _captions("Flickr30k", None, 1000, "caption-flickr30k", "flickr30k/flickr30k_test_karpathy.json"),
    _captions("NoCaps", None, 4500, "caption-nocaps", "nocaps/nocaps_val_4500_captions.json"),
)
PICTURE_BENCHMARKS = (*_MPO, *_CHOICES, *_YES_NO, *_ANSWERS, *_GROUNDING, *_CAPTIONS)
