"""VQA punctuation rule: which marks an answer loses before it is compared.

In: an answer. Out: the answer without the marks. Source: the official VQA evaluation, as VLMEvalKit's
`process_punctuation` has it.
"""

import re

MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # the official code passes `re.UNICODE` (32) as the count


def remove_punctuation(text: str) -> str:
    """Text without punctuation.

    A mark that stands beside a blank is deleted, any other mark becomes a blank; a comma between two digits makes
    all marks of the text the first kind. A period goes unless a digit follows.
    """
    delete_all = _THOUSANDS.search(text) is not None
    result = text
    for mark in MARKS:
        delete = delete_all or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    return _PERIOD.sub("", result, count=_MAX_PERIODS)
