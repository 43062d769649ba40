"""Filter training data by rules and a judge: kept, dropped and flagged samples, each with its reasons.

SOURCE is a .jsonl file (conversations, preference pairs or responses), a folder of such files, or a meta JSON. OUT gets
kept.jsonl (the lines as they were), dropped.jsonl and flagged.jsonl (for a manual review) in input order, of several
data sets a folder for each, and report.json. An interrupted run continues, with the output of an uninterrupted one.
--judge scores the quality of texts and the repetition of all samples, 0 to 10. --decisions applies what reviewers
decided about flagged samples (curate review).

examples:
  paddle-internvl curate filter data.jsonl filtered --root pictures
  paddle-internvl curate filter meta.json filtered --exempt docvqa,chartqa --plot rules.png
  paddle-internvl curate filter data.jsonl filtered --near-duplicates 0.8 --drop repetition --off language_mix
  paddle-internvl curate filter data.jsonl filtered --threshold sentence_length=300 --json
  paddle-internvl curate filter meta.json filtered --judge http://host:23333/v1 --domain gsm8k=math --scores
  paddle-internvl curate filter data.jsonl reviewed --decisions filtered/flagged.decisions.jsonl
  paddle-internvl curate filter data.jsonl filtered --workers 8 --ray-address auto
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl import plotting
from paddle_internvl.cli.argument_types import plot_file
from paddle_internvl.cli.conventions import add_workers_flags, require_workers
from paddle_internvl.cli.judge_flags import add_judge_flags, judge_of


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def threshold(text: str) -> tuple[str, float]:
    """Type of RULE=NUMBER."""
    name, _, value = text.partition("=")
    return name, float(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", type=Path, help=".jsonl file, folder of them, or meta JSON")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the outputs")
    parser.add_argument("--root", type=Path, metavar="DIR", help="of the media (default: SOURCE's, or the meta's)")
    for action, text in (("drop", "drop what breaks them"), ("flag", "flag it for review"), ("off", "leave them out")):
        parser.add_argument(f"--{action}", type=_names, default=(), metavar="RULE,…", help=text)
    parser.add_argument(
        "--threshold", type=threshold, action="append", default=[], metavar="RULE=NUMBER",
        help="a higher score breaks the rule, of the judge a lower one; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--near-duplicates", type=float, metavar="J",
        help="flag samples whose words are similar to an earlier one's (Jaccard similarity, e.g. 0.8)",
    )  # fmt: skip
    parser.add_argument("--exempt", type=_names, default=(), metavar="NAME,…",
                        help="data sets that the repetition rules leave alone")  # fmt: skip
    add_judge_flags(parser)
    parser.add_argument("--domain", action="append", default=[], metavar="[NAME=]DOMAIN",
                        help="prompt of the quality's judge, for a data set or for all: general (default), math, code, "
                        "ocr, science, creative; may be repeated")  # fmt: skip
    parser.add_argument("--scores", action="store_true", help="write scores.jsonl too, every score of every line")
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="of reviewers about flagged samples")
    add_workers_flags(parser, "that run the rules")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where OUT holds a run")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw the findings of each rule")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.curation.decisions import read_decisions
    from paddle_internvl.curation.filter import FilterSettings, run_filter
    from paddle_internvl.curation.filter_sources import filter_sources
    from paddle_internvl.progress import bar

    require_workers(arguments)
    sources = filter_sources(arguments.source, arguments.root)
    decisions = read_decisions(arguments.decisions) if arguments.decisions else None
    with judge_of(arguments) as judge, bar("lines", unit="line") as progress:
        settings = FilterSettings(
            rules=_rules(arguments), exempt=frozenset(arguments.exempt), judge=judge, decisions=decisions,
            domains=_domains(arguments.domain, [source.name for source in sources]), scores=arguments.scores,
            workers=arguments.workers, ray_address=arguments.ray_address,
        )  # fmt: skip
        report = run_filter(sources, arguments.out, settings, arguments.overwrite, progress.update)
    if arguments.plot:
        _draw(report, arguments.plot)
    print(json.dumps(report, ensure_ascii=False) if arguments.json else "\n".join(_lines(report, decisions)))
    return EXIT_OK


def _domains(values: list[str], names: list[str]) -> dict[str, str]:
    """Domain of each data set: of all, or of the one that is named."""
    domains: dict[str, str] = {}
    for value in values:
        name, _, domain = value.rpartition("=")
        domains.update(dict.fromkeys([name] if name else names, domain))
    return domains


def _rules(arguments: argparse.Namespace) -> dict:
    """The table of rules with the actions and thresholds of the command line."""
    from paddle_internvl.curation.rules import RULES

    rules, changes = dict(RULES), dict(arguments.threshold)
    actions = {name: action for action in ("drop", "flag", "off") for name in getattr(arguments, action)}
    if arguments.near_duplicates is not None:
        changes["near_duplicate"] = arguments.near_duplicates
        actions.setdefault("near_duplicate", "flag")
    for name in [*actions, *changes]:
        if name not in RULES:
            raise ValueError(f"rule {name!r}; use some of {', '.join(RULES)}")
        rule = dataclasses.replace(rules[name], action=actions.get(name, rules[name].action))
        rules[name] = dataclasses.replace(rule, threshold=changes.get(name, rule.threshold))
    if not 0 < rules["near_duplicate"].threshold <= 1:
        raise ValueError("--near-duplicates is a similarity above 0, at most 1")
    return rules


def _lines(report: dict[str, dict], decisions=None) -> list[str]:
    """The counts for people."""
    lines = []
    for name, counts in report.items():
        shares = (f"{counts[key]:,} {key}" for key in ("kept", "dropped", "flagged"))
        lines.append(f"{name}: {counts['lines']:,} lines: {', '.join(shares)}")
        for rule, actions in counts["rules"].items():
            lines += [f"  {rule:<18}{action:<6}{count:>10,}" for action, count in actions.items()]
        for part in ("judge", "review"):
            lines += [f"  {f'{part}: {name}':<24}{count:>10,}" for name, count in counts.get(part, {}).items()]
    if decisions is not None:
        applied = sum(sum(counts.get("review", {}).values()) for counts in report.values())
        if len(decisions.by_sample) > applied:
            lines.append(f"{len(decisions.by_sample) - applied} decisions are about samples that are not flagged")
    return lines


def _draw(report: dict[str, dict], file: Path) -> None:
    """A bar for each rule, with a part for each data set."""
    rules = sorted({rule for counts in report.values() for rule in counts["rules"]}, reverse=True)
    figure = plotting.new_figure(8, 1.5 + 0.3 * len(rules))
    axes, left = figure.subplots(), [0] * len(rules)
    for name, counts in report.items():
        values = [sum(counts["rules"].get(rule, {}).values()) for rule in rules]
        axes.barh(rules, values, left=left, label=name)
        left = [start + value for start, value in zip(left, values)]
    axes.set(xlabel="samples that break the rule")
    axes.legend()
    plotting.save(figure, file)
