"""Drafts: uploads of a question that is not sent yet, each decoded once for as long as it waits.

In: paths of uploads, and the visitor's `SessionState`. Out: their attachments.
"""

from __future__ import annotations

from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.uploads import Attachment, Receiver


async def attach(
    receiver: Receiver, box: dict | None, state: SessionState, clip: str | None = None, frames: int = 0
) -> list[Attachment]:
    """The attachments of a question's uploads.

    Args:
        receiver: of the uploads.
        box: value of a `gr.MultimodalTextbox`.
        state: of the visitor; its `drafts` are what waits from now on.
        clip: path of a clip.
        frames: number of frames of the clip.
    Raises:
        MediaError: see `Receiver`.
    """
    uploads = [(path, 0) for path in (box or {}).get("files") or ()] + ([(clip, int(frames))] if clip else [])
    kept, drafts = state.drafts, {}
    state.drafts = drafts
    for path, count in uploads:
        draft = kept.get((path, count))
        if draft is None:
            draft = await (receiver.clip(path, count) if count else receiver.picture(path))
        drafts[path, count] = draft
        receiver.check_together([*state.attachments(), *drafts.values()])
    return [drafts[upload] for upload in uploads]
