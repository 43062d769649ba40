"""Reference model of preference optimisation: a frozen copy of the policy, or log-probabilities stored in a file.

In: a policy before its first step, batches of preference pairs. Out: the log-probability of each row's answer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from paddle import distributed

from paddle_internvl.jsonl import append_objects, read_objects
from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.training.collate import ANSWERS, collate
from paddle_internvl.training.losses import sft_loss, tiles_to_run
from paddle_internvl.training.reader import SampleReader

_BATCHES = 16  # of each rank, between two writes of the file


def answer_log_probs(model, batch: Mapping) -> paddle.Tensor:
    """Log-probabilities of the answers of a batch of pairs, in one forward pass that sees each picture once.

    Args:
        model: an `InternVLNetwork`, or a wrapper of one.
        batch: of `collate`, of B pairs.
    Returns:
        float32 [2B], sums over the tokens of each answer: of the chosen answers, then of the rejected ones.
    """
    names = ("input_ids", "attention_mask", "position_ids", "labels")
    inputs = {name: paddle.to_tensor(batch[name]) for name in names}
    pixel_values, image_flags = tiles_to_run(batch["pixel_values"], batch["image_flags"])
    options = {"repeats": len(ANSWERS), "return_logits": False, "return_log_probs": True}
    return model(pixel_values=pixel_values, image_flags=image_flags, **inputs, **options).log_probs


def answer_tokens(batch: Mapping) -> np.ndarray:
    """Learnt tokens of each row of a batch, float32 [2B]."""
    return (np.asarray(batch["labels"])[:, 1:] != IGNORED).sum(axis=1).astype(np.float32)


class FrozenReference:
    """A frozen copy of a model as it is now, which shares the frozen weights with it.

    So a LoRA run has no second copy: the reference model is the base model behind adapters that are 0. It runs by the
    same operations as the policy, which before the first step has the same log-probabilities bit for bit.

    Args:
        model: the policy, with its trainable parameters chosen.
    Attributes:
        model: the copy, in evaluation mode.
    """

    def __init__(self, model):
        shared = {id(p): p for p in [*model.parameters(), *model.buffers()] if p.stop_gradient}
        self.model = copy.deepcopy(model, shared)
        self.model.vision_as_trained = not all(p.stop_gradient for p in model.vision_model.parameters())
        for parameter in self.model.parameters():
            parameter.stop_gradient = True
        self.model.eval()

    def log_probs(self, batch: Mapping) -> paddle.Tensor:
        """See `answer_log_probs`."""
        return answer_log_probs(self.model, batch)  # without no_grad, which chooses other operations

    def stand_by(self, batch: Mapping) -> None:
        """Run the model on a batch without pairs: with sharded parameters every rank has to run it equally often."""
        with paddle.no_grad():
            sft_loss(self.model, batch)


class StoredReference:
    """Log-probabilities of a reference model, from a file.

    The file's first line has the settings that it was made with; each other line is a pair: its data set, annotation
    line, and the log-probability and number of tokens of both answers.

    Args:
        file: JSONL.
        settings: what the log-probabilities depend on, beside the pair.
    Raises:
        ValueError: the file was made with other settings.
    """

    def __init__(self, file: Path, settings: Mapping):
        self._file, self._settings = file, json.loads(json.dumps(dict(settings)))
        self._pairs: dict[tuple, list] = {}
        whole = read_objects(file)
        stored = whole[0]["settings"] if whole else self._settings
        for name in sorted(stored.keys() | self._settings.keys()):
            if stored.get(name) != self._settings.get(name):
                raise ValueError(
                    f"{file} was made with {name}={stored.get(name)!r}, this run has {self._settings.get(name)!r}; "
                    "delete it or give another reference_log_probs"
                )
        self._add(whole[1:])

    def log_probs(self, batch: Mapping) -> paddle.Tensor:
        """See `answer_log_probs`.

        Raises:
            ValueError: the file lacks a pair, or the pair was another one.
        """
        pairs = [self._pairs.get(tuple(sample)) for sample in batch["samples"]]
        tokens = answer_tokens(batch).reshape([2, -1]).T.tolist()
        for (dataset, line), pair, lengths in zip(batch["samples"], pairs, tokens):
            if pair is None or pair["tokens"] != lengths:
                problem = "lacks" if pair is None else "has other answers for"
                raise ValueError(f"{self._file} {problem} {dataset} line {line + 1}; delete it, and it is made anew")
        return paddle.to_tensor(np.array([pair["log_probs"] for pair in pairs], np.float32).T.flatten())

    def stand_by(self, batch: Mapping) -> None:
        """See `FrozenReference`; there is no model to run."""

    def complete(
        self, model, reader: SampleReader, batch_size: int, idle: Mapping, rank: int = 0, ranks: int = 1
    ) -> None:
        """Compute what the file lacks and append it. Every rank calls it at the same time.

        Args:
            model: the policy before its first step, of which a frozen copy is the reference model.
            reader: of the pairs.
            batch_size: pairs of a forward pass.
            idle: batch that a rank without pairs runs.
            rank: this rank.
            ranks: number of ranks.
        Raises:
            ValueError: pairs that are not the same in every epoch.
        """
        require_fixed_pairs(reader.dataset)
        places = {key: i for i, key in enumerate(_names(reader.dataset)) if key not in self._pairs}
        missing, step = list(places.values()), _BATCHES * batch_size * ranks
        reference = FrozenReference(model) if missing else None
        for first in range(0, len(missing), step):
            part = missing[first : first + step]
            pairs = reader.read((0, index) for index in part[rank::ranks])
            passes = len(range(0, len(part[::ranks]), batch_size))
            computed = self._compute(reference, pairs, passes, batch_size, idle)
            everything = [computed]
            if distributed.is_initialized():
                everything = []
                distributed.all_gather_object(everything, computed)
            lines = [line for part in everything for line in part]
            self._add(lines)
            if rank == 0:
                self._write(lines)

    @staticmethod
    def _compute(
        reference: FrozenReference, pairs: Iterator[dict | None], passes: int, batch_size: int, idle: Mapping
    ) -> list[dict]:
        lines = []
        for _ in range(passes):
            kept = [pair for pair in islice(pairs, batch_size) if pair is not None]
            if kept:
                batch = collate(kept)
                values = reference.log_probs(batch).reshape([2, -1]).t().tolist()
                tokens = answer_tokens(batch).reshape([2, -1]).T.tolist()
                lines += [
                    {"dataset": name, "index": index, "log_probs": both, "tokens": lengths}
                    for (name, index), both, lengths in zip(batch["samples"], values, tokens)
                ]
            else:
                reference.stand_by(idle)
        return lines

    def _add(self, lines: list[dict]) -> None:
        self._pairs.update({(line["dataset"], line["index"]): line for line in lines})

    def _write(self, lines: list[dict]) -> None:
        header = [] if read_objects(self._file) else [{"settings": self._settings}]
        append_objects(self._file, [*header, *lines])


def require_fixed_pairs(dataset) -> None:
    """Check that the pairs of a data set are the same in every epoch.

    Raises:
        ValueError: random frames or JPEG artefacts.
    """
    for spec in getattr(dataset, "datasets", ()):
        if spec.data_augment:
            raise ValueError(
                f"reference_log_probs: data set {spec.name} has data_augment, which is random; set it false"
            )
        arguments = dataset.arguments
        fixed = arguments.sampling_method == "middle" and arguments.min_num_frame == arguments.max_num_frame
        if not fixed and any(spec.parse(annotation).get("video") for annotation in spec.annotations):
            raise ValueError(
                f"reference_log_probs: frames of the clips of data set {spec.name} are random; set sampling_method "
                "middle, and min_num_frame and max_num_frame to the same number"
            )


def _names(dataset) -> Iterator[tuple[str, int]]:
    """Data set and annotation line of each pair."""
    if not hasattr(dataset, "place"):
        return ((pair["dataset"], pair["index"]) for pair in dataset)
    places = map(dataset.place, range(len(dataset)))
    return ((spec.name, annotation.index) for spec, annotation in places)
