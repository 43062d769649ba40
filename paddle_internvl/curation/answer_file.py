"""File of sampled answers that an interrupted run continues: a JSONL that grows by a line an answer.

In: items, each to be answered several times. Out: lines in the order of the items; what the file has is not sampled
again, whatever was interrupted.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.answering import AnswerRequest, Answers
from paddle_internvl.curation.jsonl import as_line, input_files, read_lines
from paddle_internvl.evaluation.completion import ChatRequestError
from paddle_internvl.training.mixture import DataError

Progress = Callable[[int, int], None]
NUMBER = "answer_number"  # field of a line: number of the answer to its item


@dataclass(frozen=True)
class AnswerForm:
    """Form of a file of answers.

    Attributes:
        key: text that identifies an item, also of a line of the file.
        fault: why a line can't be continued by this run; None if it can.
        request: (item, number of the answer) -> its request.
        line: (item, text of the answer) -> the object of a line; None: the answer is of no use, and is counted.
    """

    key: Callable[[dict], str]
    fault: Callable[[dict], str | None]
    request: Callable[[dict, int], AnswerRequest]
    line: Callable[[dict, str], dict | None]


def read_items(source: Path, fault: Callable[[dict], str | None]) -> list[dict]:
    """The items of a JSONL file or of a folder of such files.

    Args:
        source: file or folder.
        fault: why an object is no item; None if it is one.
    Raises:
        DataError: names the line.
    """
    items = []
    for file, line in ((path, line) for path in input_files(source) for line in read_lines(path)):
        reason = line.error or fault(line.item)
        if reason:
            raise DataError(f"{file}:{line.number}: {reason}")
        items.append(line.item)
    return items


def append_answers(
    target: Path,
    items: Sequence[dict],
    count: int,
    form: AnswerForm,
    answers: Answers,
    skip_failed: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Counter:
    """Append answers until every item has `count` of them.

    Args:
        target: JSONL, appended to; a last line that was cut off is removed.
        items: in the order of the file.
        count: answers of an item.
        form: of the file.
        answers: answers requests in their order.
        skip_failed: count requests that an endpoint refuses instead of stopping; a later run tries them again.
        on_progress: called with the answers that the file has, and those that it will have.
    Returns:
        `sampled` (lines appended), `failed`, `unused`.
    Raises:
        DataError: a line of the file that this run can't continue.
        ChatRequestError: a refused request.
    """
    missing = _missing(items, _numbers(target, form), count, form.key)
    total = count * len(items)
    counts = Counter(sampled=0, failed=0, unused=0)
    on_progress(total - len(missing), total)
    target.parent.mkdir(parents=True, exist_ok=True)
    requests = (form.request(item, number) for item, number in missing)
    with open(target, "a", encoding="utf-8") as stream:
        for done, ((item, number), answer) in enumerate(zip(missing, answers(requests)), total - len(missing) + 1):
            if isinstance(answer, ChatRequestError):
                if not skip_failed:
                    raise answer
                counts["failed"] += 1
            elif (line := form.line(item, answer)) is None:
                counts["unused"] += 1
            else:
                stream.write(as_line({**line, NUMBER: number}))
                stream.flush()
                counts["sampled"] += 1
            on_progress(done, total)
    return counts


def answer_seed(key: str, number: int, seed: int) -> int:
    """Seed of an answer: it depends on the item, the answer's number and the run's seed, and on nothing else."""
    text = f"{seed} {number} {key}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def _missing(
    items: Sequence[dict], done: Mapping[str, set[int]], count: int, key: Callable[[dict], str]
) -> list[tuple[dict, int]]:
    """Items and numbers of the answers that the file lacks. An item that comes again has higher numbers."""
    missing: list[tuple[dict, int]] = []
    earlier: Counter = Counter()
    for item in items:
        name = key(item)
        numbers = range(earlier[name], earlier[name] + count)
        earlier[name] += count
        missing += [(item, number) for number in numbers if number not in done.get(name, ())]
    return missing


def _numbers(target: Path, form: AnswerForm) -> dict[str, set[int]]:
    """Numbers of the answers in the file by key; a last line that was cut off is removed."""
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    if not target.exists():
        return numbers
    end = 0
    for line in _whole_lines(target):
        reason = line.error or form.fault(line.item)
        if reason:
            raise DataError(f"{target}:{line.number}: {reason}")
        present = numbers[form.key(line.item)]
        present.add(line.item.get(NUMBER, len(present)))
        end = line.offset + line.size
    with open(target, "r+b") as stream:
        stream.truncate(end)
    return numbers


def _whole_lines(target: Path) -> Iterator:
    """Lines up to the one that an interrupted write cut off."""
    for line in read_lines(target):
        if not line.complete:
            return
        yield line
