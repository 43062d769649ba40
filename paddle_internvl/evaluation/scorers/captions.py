"""CIDEr of captions of COCO, Flickr30k and NoCaps: consensus of a caption with the references of its picture.

CIDEr weighs n-grams by the references of all scored pictures, so that a part of a benchmark has no comparable figure.
Sources: arXiv 1411.5726; VLMEvalKit's image_caption.py, which compares the words as they are; upstream's
`evaluate_caption.py`, which removes case and punctuation by Stanford's PTB tokenizer (Java) first. Both call
pycocoevalcap, as this module does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.rowwise import references
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent

Captions = dict[Index, list[str]]
_END = "end"  # of the tokenized lines: the tokenizer leaves out empty lines at the end


def score_captions(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """CIDEr by VLMEvalKit's rules, x100; the verdict on a row is its CIDEr, 0 to 10.

    Args:
        items: pictures, whose answer is the text of a list of references.
        answers: captions of the model, by index.
        judge: is not asked: the rules have no judge.
    Raises:
        ImportError: pycocoevalcap is not installed.
    """
    return _score(items, answers, lambda captions: captions)


def score_internvl_captions(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """CIDEr by upstream's rules: as `score_captions`, after Stanford's PTB tokenizer.

    Args:
        items: pictures, whose answer is the text of a list of references.
        answers: captions of the model, by index.
        judge: is not asked: the rules have no judge.
    Raises:
        ImportError: pycocoevalcap or Java is not installed.
    """
    return _score(items, answers, _ptb_tokenized)


def _score(items: Sequence[Item], answers: Mapping[Index, str], tokenize: Callable[[Captions], Captions]) -> Scores:
    targets = {item.index: texts for item in items if item.index in answers and (texts := references(item.answer))}
    rows = {item.index: Verdict(None) for item in items}
    if not targets:
        return Scores({}, None, rows)
    tokenized = tokenize({index: [answers[index], *texts] for index, texts in targets.items()})
    verdicts = _cider(list(tokenized.values()))
    rows.update(zip(targets, map(Verdict, verdicts), strict=True))
    table = {("none", "CIDEr"): percent(verdicts)}
    return Scores(table, table["none", "CIDEr"], rows)


def _cider(captions: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr of the first caption of each list with the others as references."""
    try:
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    except ImportError:
        raise ImportError("CIDEr needs pycocoevalcap: pip install 'paddle_internvl[captions]'") from None
    scorer = CiderScorer()
    for caption, *texts in captions:
        scorer += (caption, texts)
    return [float(verdict) for verdict in scorer.compute_score()[1]]


def _ptb_tokenized(captions: Captions) -> Captions:
    if shutil.which("java") is None:
        raise ImportError(
            "CIDEr by upstream's rules needs Java, for Stanford's PTB tokenizer; or use --rules vlmevalkit"
        )
    try:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError:
        raise ImportError("CIDEr needs pycocoevalcap: pip install 'paddle_internvl[captions]'") from None
    # One line a caption. A text holds more line ends than "\n", and no lone surrogate can be written.
    lines = {
        index: [{"caption": " ".join(text.encode(errors="replace").decode().split())} for text in texts]
        for index, texts in {**captions, _END: [_END]}.items()
    }
    tokenized = PTBTokenizer().tokenize(lines)
    if tokenized.pop(_END, None) != [_END]:
        raise ValueError("the PTB tokenizer returned another number of lines than it was given")
    return tokenized
