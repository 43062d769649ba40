"""CSS of the page, beyond Gradio's theme; part of the page itself, so that any host of Gradio shows it."""

CSS = """
.gradio-container { max-width: 1400px !important; padding-top: 12px !important; }
body:not(.dark) .gradio-container {  /* Gradio's own light colours are too pale to read for some */
  --body-text-color-subdued: #4b5563; --block-info-text-color: #4b5563; --block-title-text-color: #3730a3;
  --block-label-text-color: #3730a3; --color-accent: #4338ca; --checkbox-label-background-fill-selected: #4338ca;
  --checkbox-background-color-selected: #312e81; --input-placeholder-color: #6b7280; --link-text-color: #3730a3;
}
.dark .gradio-container {  /* and its dark ones too dim */
  --color-accent: #a5b4fc; --link-text-color: #a5b4fc; --input-placeholder-color: #9ca3af;
}
.gradio-container :focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 1px; }
.gradio-container textarea:focus-visible { outline-offset: -2px; }
#style { display: none; }
.visually-hidden[aria-hidden=true] { visibility: hidden; }  /* Gradio's second row of tabs */
#title { flex: 1 1 280px; min-width: 280px; }
#language { align-self: end; }
#stop, #again, #clear { flex: 1 1 auto; padding-inline: 8px; min-width: max-content !important; }
#chat .edit-textarea { width: 100% !important; min-width: min(60vw, 420px); }
@supports (field-sizing: content) {  /* Gradio leaves its boxes as large as what was in them */
  #box textarea, #chat .edit-textarea { field-sizing: content; height: auto !important; max-height: 12em; }
}
#chat .thought-group .title button { pointer-events: none; }
#clip .wrap[data-words] { font-size: 0; padding-top: 24px; }
#clip .wrap[data-words] > .or { display: none; }
#clip .wrap[data-words]::after { content: attr(data-words); font-size: 1rem; padding: 0 8px; text-align: center; }
.figures { display: flex; flex-wrap: wrap; gap: 8px; }
.figures figure { margin: 0 !important; max-width: 100%; }
.figures img { display: block; max-width: 100%; max-height: 240px; margin: 0 !important; border-radius: 4px; }
.figures figcaption { font-size: 0.85em; overflow-wrap: anywhere; }
#seen_title h2 { font-size: 1.15rem; margin: 0; }
#seen .figures { align-items: end; }
#seen .figures figure { width: min-content; min-width: min(320px, 100%); }
#chat .figures img { max-height: 160px; }
#chat .bot .figures img { max-height: 300px; }
.strip { overflow-x: auto; }
.strip .figures { flex-wrap: nowrap; }
#seen .strip figure { flex: 0 0 auto; width: auto; min-width: 0; }
#chat .strip .figures img, .strip .figures img { max-height: 100px; max-width: none; }
.problem { color: #b00020 !important; font-weight: 600; overflow-wrap: anywhere; }
.dark .problem { color: #ff8a80 !important; }
#chat .message.html { padding: 8px 12px; }
.note { font-size: 0.9em; }
.total { font-variant-numeric: tabular-nums; }
"""
