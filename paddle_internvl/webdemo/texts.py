"""Texts of the page in English and Chinese. Error messages are in `error_texts`; answers of models stay as they are.

In: a text's name and a language. Out: the text.
"""

from __future__ import annotations

LANGUAGES = {"en": "English", "zh": "中文"}

# name -> (English, Chinese)
_TEXTS = {
    "title": ("InternVL on PaddlePaddle", "InternVL · 飞桨"),
    "language": ("Language", "语言"),
    "chat": ("Conversation", "对话"),
    "view": ("View", "视图"),
    "conversation": ("Conversation", "对话"),
    "comparison": ("Comparison", "对比"),
    "comparison_hint": (
        "One question under two settings, answered one after the other. Earlier questions are no part of it.",
        "同一个问题用两组设置依次回答，不带此前的对话。",
    ),
    "answer_a": ("Answer A", "回答 A"),
    "answer_b": ("Answer B", "回答 B"),
    "settings_a": ("Settings A", "设置 A"),
    "settings_b": ("Settings B", "设置 B"),
    "greeting": (
        "Add pictures or a clip, and ask about them. Or try one of these:",
        "添加图片或视频，然后提问。也可以试试：",
    ),
    "box": ("Your question", "你的问题"),
    "box_hint": (
        "Ask something; drop, paste or attach pictures",
        "输入问题；可拖放、粘贴或添加图片",
    ),
    "attach": ("Attach pictures", "添加图片"),
    "attached": ("Attached", "已添加"),
    "picture": ("Picture", "图片"),
    "remove": ("Remove", "移除"),
    "send": ("Send", "发送"),
    "copy": ("Copy", "复制"),
    "edit": ("Edit", "编辑"),
    "close": ("Close", "关闭"),
    "cancel": ("Cancel", "取消"),
    "question": ("Question", "问题"),
    "answer": ("Answer", "回答"),
    "stop": ("Stop", "停止"),
    "again": ("Regenerate", "重新生成"),
    "clear": ("Clear", "清空"),
    "save_json": ("Save JSON", "保存 JSON"),
    "save_markdown": ("Save Markdown", "保存 Markdown"),
    "parameters": ("{count} parameters", "{count} 参数"),
    "context": ("context {length} tokens", "上下文 {length} token"),
    "last_speed": ("last answer {speed} tokens/s", "上次回答 {speed} token/秒"),
    "timing": ("{tokens} tokens · first after {first} s", "{tokens} 个 token · 首个 {first} 秒"),
    "speed": ("{speed} tokens/s", "{speed} token/秒"),
    "adapter": ("Adapter (LoRA)", "适配器 (LoRA)"),
    "adapter_hint": (
        "loaded when it is first chosen; takes as much memory as the model",
        "首次选择时加载；占用的内存与模型相同",
    ),
    "no_adapter": ("none", "无"),
    "seen": ("What the model will see", "模型将看到的内容"),
    "pictures": ("Pictures", "图片"),
    "video": ("Video", "视频"),
    "clip": ("Clip (MP4, WebM, GIF …)", "视频（MP4、WebM、GIF 等）"),
    "drop": ("Drop a clip here, or click to choose one", "将视频拖放到此处，或点击选择"),
    "reset": ("Reset", "重置"),
    "frames": ("Frames", "帧数"),
    "frames_hint": ("spread evenly over the clip, one tile each", "在视频中均匀抽取，每帧一个图块"),
    "settings": ("Settings", "设置"),
    "system": ("System prompt", "系统提示词"),
    "thinking": ("Thinking", "思考"),
    "thinking_hint": (
        "thoughts before the answer; takes the place of the system prompt",
        "先思考再回答；此时系统提示词不起作用",
    ),
    "keep_thoughts": ("Keep thoughts", "保留思考"),
    "keep_thoughts_hint": ("thoughts of earlier answers are sent again", "提问时带上此前回答的思考"),
    "thoughts": ("Thoughts", "思考过程"),
    "temperature": ("Temperature", "温度"),
    "temperature_hint": ("0 takes the likeliest token", "0 表示总取最可能的词"),
    "top_p": ("Top-p", "Top-p"),
    "penalty": ("Repetition penalty", "重复惩罚"),
    "limit": ("Max new tokens", "最大生成长度"),
    "tiles": ("Tiles per picture, at most", "每张图片最多图块数"),
    "nothing": (
        "No picture waits for the next question.",
        "下一个问题还没有图片。",
    ),
    "tile": ("1 tile", "1 个图块"),
    "grid": ("{columns} × {rows} tiles", "{columns} × {rows} 个图块"),
    "grid_thumbnail": ("{columns} × {rows} tiles and a thumbnail", "{columns} × {rows} 个图块加缩略图"),
    "tokens": ("{tokens} tokens", "{tokens} 个 token"),
    "frame": ("Frame {number}", "第 {number} 帧"),
    "picture_alt": ("{name}, cut into {columns} × {rows} tiles", "{name}，切成 {columns} × {rows} 个图块"),
    "total": (
        "{total} of {length} tokens with what is asked so far, {visual} of them from pictures",
        "连同已输入的内容共 {total} / {length} 个 token，其中图片 {visual} 个",
    ),
    "overflow": ("too long: choose fewer tiles or frames, or clear", "超出长度：请减少图块或帧数，或清空对话"),
    "cut": ("ended at the limit of new tokens", "已达最大生成长度"),
    "stopped": ("stopped", "已停止"),
    "error": ("Error", "错误"),
    "attention": ("Attention", "注意力"),
    "attention_share": (
        "{name}: {share} of the answer's attention",
        "{name}：占回答注意力的 {share}",
    ),
    "attention_thumbnail": ("{name}: its thumbnail", "{name} 的缩略图"),
    "attention_note": (
        "A square is a visual token; lighter is more attention. Mean over heads, layers and the answer's tokens.",
        "一个方格是一个视觉 token，越亮注意力越多。取所有头、所有层与回答中所有 token 的平均。",
    ),
    "attention_server": (
        "Attention needs the model in this process; this page asks a server.",
        "注意力图需要模型就在本进程里；此页面连接的是一个服务。",
    ),
    "attention_picture": ("The conversation has no picture.", "对话里没有图片。"),
    "boxes": ("Boxes of the answer", "回答中的方框"),
    "boxes_last": (
        "Boxes of the answer, drawn on the last of {count} pictures",
        "回答中的方框，画在 {count} 张图片的最后一张上",
    ),
    "notice": ("Notice", "提示"),
    "busy": ("An answer is being made; stop it first.", "正在生成回答，请先停止。"),
    "empty": ("Write a question first.", "请先输入问题。"),
    "none": ("There is no question yet.", "还没有问题。"),
    # the page of a review
    "review": ("Review of flagged samples", "复核被标记的样本"),
    "reviewer": ("Your name", "你的名字"),
    "reviewer_hint": ("Decisions are stored under it.", "决定以此名字保存。"),
    "accept": ("Accept (A)", "接受 (A)"),
    "reject": ("Reject (R)", "拒绝 (R)"),
    "undo": ("Undo (U)", "撤销 (U)"),
    "next": ("Next (N)", "下一个 (N)"),
    "progress": (
        "{decided} of {total} decided: {accept} accepted, {reject} rejected, {conflict} with different decisions",
        "已决定 {decided} / {total}：接受 {accept}，拒绝 {reject}，意见不一 {conflict}",
    ),
    "place": ("{dataset}, line {line}", "{dataset}，第 {line} 行"),
    "rule": ("Rule", "规则"),
    "score": ("Score", "得分"),
    "detail": ("Detail", "详情"),
    "anonymous": ("Write your name to begin.", "请先输入名字。"),
    "finished": ("All samples are decided.", "所有样本都已决定。"),
    "no_undo": ("You have no decision to undo.", "没有可以撤销的决定。"),
}


def text(name: str, language: str, /, **values) -> str:
    """A text of the page.

    Args:
        name: of the text.
        language: of `LANGUAGES`.
        values: of the text's placeholders.
    Raises:
        KeyError: no such text.
        ValueError: no such language.
    """
    return _TEXTS[name][list(LANGUAGES).index(language)].format(**values)


def preferred_language(accepted: str | None) -> str:
    """The first language of a browser's Accept-Language header that the page has, else English."""
    for part in (accepted or "").lower().split(","):
        language = part.strip()[:2]
        if language in LANGUAGES:
            return language
    return "en"
