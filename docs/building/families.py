"""The family table of `docs/families.md`, from configs/*.json.

    python -m docs.building.families        writes it between the page's marks, in both languages

In: the configs. Out: Markdown. A test holds the pages to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from convert.mappings import paddle_config
from paddle_internvl.cli.info import describe

ROOT = Path(__file__).parents[2]
PAGES = {"en": ROOT / "docs/families.md", "zh": ROOT / "docs/families.zh.md"}
BEGIN, END = "<!-- table of configs: begin -->", "<!-- table of configs: end -->"
_HEADS = {
    "en": ("config", "template", "ViT: layers × width", "decoder", "layers × width", "heads / kv heads", "vocabulary",
           "parameters", "bfloat16 weights, GB", "KV cache, bytes a token"),
    "zh": ("配置", "对话模板", "ViT：层数 × 宽度", "语言模型", "层数 × 宽度", "注意力头 / KV 头", "词表", "参数量",
           "bfloat16 权重（GB）", "KV 缓存（字节/token）"),
}  # fmt: skip


def rows() -> list[tuple[str, ...]]:
    """A row for each config, by generation and size."""
    described = []
    for file in (ROOT / "configs").glob("*.json"):
        described.append((file.stem, describe(paddle_config(json.loads(file.read_text(encoding="utf-8"))))))
    described.sort(key=lambda pair: (pair[0].split("-")[0], pair[1]["parameters"]["total"]))
    return [_row(name, said) for name, said in described]


def _row(name: str, said: dict) -> tuple[str, ...]:
    vision, decoder = said["vision"], said["decoder"]
    return (
        f"`{name}`",
        f"`{said['template']}`",
        f"{vision['num_hidden_layers']} × {vision['hidden_size']}",
        f"`{said['language model']}`",
        f"{decoder['num_hidden_layers']} × {decoder['hidden_size']}",
        f"{decoder['num_attention_heads']} / {decoder['num_key_value_heads']}",
        f"{decoder['vocab_size']:,}",
        f"{said['parameters']['total']:,}",
        f"{said['weights bytes']['bfloat16'] / 1e9:.2f}",
        f"{said['KV cache bytes per token']['bfloat16']:,}",
    )


def table(language: str) -> str:
    """The table in Markdown."""
    lines = [_HEADS[language], ("---",) * len(_HEADS[language]), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(page: str, language: str) -> str:
    """The page's text with the table between its marks."""
    return re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{table(language)}\n{END}", page, flags=re.S)


def main() -> None:
    """Renew both pages."""
    for language, page in PAGES.items():
        page.write_text(with_table(page.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
