"""VQA answer normalization: lower case, digits for number words, no articles, no punctuation.

In: an answer. Out: the text that VQA accuracy compares. Sources: VQA's official evaluation, as upstream's
`EvalAIAnswerProcessor` and VLMEvalKit's `process_answer` have it.
"""

from __future__ import annotations

from paddle_internvl.evaluation.punctuation import remove_punctuation

# Apostrophes that answers leave out; the key is the word without any apostrophe.
_CONTRACTIONS = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's I'm I've isn't it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't
should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd
there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's
where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll
you're you've"""
# Two apostrophes, of which an answer leaves out the first or the second; and the table's own exceptions.
_DOUBLE = """couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've"""
_IRREGULAR = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _without_apostrophe(word: str, position: int) -> str:
    """A word without its first (0) or second (1) apostrophe."""
    parts = word.split("'")
    return "'".join([*parts[:position], parts[position] + parts[position + 1], *parts[position + 2 :]])


SPELLINGS = {
    **{word.replace("'", ""): word for word in _CONTRACTIONS.split()},
    **{_without_apostrophe(word, position): word for word in _DOUBLE.split() for position in (0, 1)},
    **_IRREGULAR,
}
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}


def normalize(answer: str, tokenize: bool = True) -> str:
    """VQA-normalized text of an answer; '' if nothing but articles and punctuation is in it.

    Args:
        answer: text of an answer.
        tokenize: remove commas and question marks and split "'s" first, as EvalAI and upstream; VLMEvalKit does not.
    """
    text = answer
    if tokenize:
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in remove_punctuation(text).lower().split())
    return " ".join(SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)
