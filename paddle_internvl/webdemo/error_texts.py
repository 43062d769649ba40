"""Error messages of a question in the language of the page.

In: an English message of the project. Out: the message in Chinese, or the message itself where the table lacks it.
"""

from __future__ import annotations

import re

# (pattern of the English message, Chinese; \1 is the pattern's first group)
_CHINESE = (
    (r"the picture is broken or truncated", "图片已损坏或不完整"),
    (r"the picture is broken, or is no .+", "图片已损坏，或不是 JPEG、PNG、WebP、GIF、BMP 格式"),
    (r"the picture is too large; (\d+) pixels are taken", r"图片过大；最多 \1 像素"),
    (r"the picture's format is ambiguous", "无法确定图片的格式"),
    (r"the picture is made of too many pieces", "图片的数据块过多"),
    (r"the picture has (\d+) frames; at most (\d+) are taken", r"图片有 \1 帧；最多 \2 帧"),
    (r"the picture has more than (\d+) scans", r"图片的扫描数超过 \1"),
    (r"the (?:picture|clip) is (\d+)x(\d+): it has no pixels", r"尺寸为 \1×\2，没有像素"),
    (r"the (?:picture|clip) is (\d+)x(\d+); a side may have (\d+) pixels", r"尺寸为 \1×\2；边长最多 \3 像素"),
    (r"the (?:picture|clip) is (\d+)x(\d+); (\d+) pixels are taken", r"尺寸为 \1×\2；最多 \3 像素"),
    (r"the (?:picture|clip) is (\d+)x(\d+); sides may differ by a factor of (\d+)", r"尺寸为 \1×\2；长宽比最大为 \3"),
    (r"the upload is gone; add it again", "上传的文件已被删除，请重新添加"),
    (r"the file is larger than (\d+) MiB", r"文件大于 \1 MiB"),
    (r"(\d+) frames are asked for; 1 to (\d+) are taken", r"要求 \1 帧；可取 1 至 \2 帧"),
    (r"(\d+) frames are asked for; at most (\d+) are taken", r"要求 \1 帧；最多 \2 帧"),
    (r"(\d+) frames of (\d+)x(\d+) are more than (\d+) pixels; ask for fewer", r"\1 帧 \2×\3 超过 \4 像素；请减少帧数"),
    (r"the clip can't be decoded: .+", "视频无法解码：已损坏、不完整或格式不受支持"),
    (r"the clip is no .+", "视频不是 MP4、MOV、WebM、Matroska、AVI、GIF、动态 PNG 或动态 WebP 格式"),
    (r"the clip takes more than ([\d.]+) s to decode", r"视频解码超过 \1 秒"),
    (r"the clip has (\d+) frames; 1 to (\d+) are taken", r"视频有 \1 帧；可处理 1 至 \2 帧"),
    (r"the clip has no rate of frames", "视频没有帧率信息"),
    (r"this server has no reader for clips of this kind", "本服务无法读取这种视频"),
    (r"the server has no room for the clip's frames; try again later", "服务没有空间存放视频帧，请稍后再试"),
    (r"the conversation has (\d+) pictures; (\d+) are taken; clear it", r"对话已有 \1 张图片，最多 \2 张；请清空对话"),
    (r"the conversation's pictures have (\d+) pixels; (\d+) are taken; clear it",
     r"对话中的图片共 \1 像素，最多 \2 像素；请清空对话"),
    (r"(\d+) characters are too many for (\d+) tokens; shorten the text", r"\1 个字符超出 \2 个 token；请缩短文字"),
    (r"prompt has (\d+) tokens \(.+\); the limit is (\d+), the answer included; .+",
     r"提示词有 \1 个 token，连同回答最多 \2 个；请减少图片或图块，缩短文字，或清空对话"),
    (r"(\d+) requests are queued or running already; try again later", r"已有 \1 个请求在排队或生成，请稍后再试"),
    (r"(\d+) tiles of pictures are queued already; try again later", r"已有 \1 个图块在排队，请稍后再试"),
    (r"the engine takes no more requests|the server is shutting down", "服务正在关闭"),
    (r"not enough memory for this request; .+", "内存不足；请减少或缩小图片，或缩短文字"),
    (r"the request failed inside the engine", "引擎内部出错"),
    (r"(\w+)=(.+) is no (?:number|integer|whole number from (\d+) to (\d+))", r"设置 \1=\2 不是有效的数值"),
    (r"(\w+)=(.+) is outside \[(.+), (.+)\]", r"设置 \1=\2 不在 \3 与 \4 之间"),
)  # fmt: skip
_FILE = r"(?:(?P<file>[^:]+\.\w+): )?"  # in front of a message about an upload


def error_text(message: str, language: str) -> str:
    """A message in the language of the page.

    Args:
        message: English, with or without the name of a file in front.
        language: of `texts.LANGUAGES`.
    """
    if language == "en":
        return message
    file = re.match(_FILE, message)
    name, rest = file["file"], message[file.end() :]
    for pattern, chinese in _CHINESE:
        if found := re.fullmatch(pattern, rest):
            return f"{name}：{found.expand(chinese)}" if name else found.expand(chinese)
    return message
