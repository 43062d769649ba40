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
:is(#box, #question) textarea { padding-inline: 10px !important; border-radius: 6px; }
#style { display: none; }
#header { align-items: center; gap: 4px 24px; }
#header #title { flex: 0 0 auto; width: auto; min-width: 0; }
#header #title h1 { font-size: 1.4rem; margin: 0; }
#header #language { flex: 0 0 auto; width: auto; }
#strip { flex: 1 1 260px; min-width: 0; }
#strip span { white-space: nowrap; }
#strip :is(div, span) { font-size: 0.8rem; }
body:not([data-view=comparison]) #comparison, body[data-view=comparison] #conversation { display: none; }
#view { flex: 0 0 auto; width: auto; }
#compared { align-items: center; }
.compared [role=log] { padding-top: 28px; }  /* below its label */
.compared .top-panel { display: none; }  /* it would clear the browser's copy alone */
#compared #stop_both { flex: 0 0 auto; }
#actions { gap: 8px; }
#actions button { font-size: 1rem; flex: 1 1 auto; padding-inline: 8px; min-width: max-content !important; }
#chat .placeholder-content { display: flex; flex-direction: column; gap: 16px; height: 100%; justify-content: center; }
#chat .placeholder { flex: 0 0 auto; height: auto; }
#chat .examples { gap: 12px; width: 100%; max-width: 620px; flex: 0 0 auto; margin: 0 auto; }
#chat .example { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 8px 12px; }
#chat .example:hover { border-color: var(--color-accent); }
#chat .example-content { flex-direction: row; align-items: center; gap: 12px; }
#chat .example :is(img, .example-image-container) { object-fit: contain; width: 44px; height: 44px; }
.toast-wrap { top: auto !important; bottom: 16px; }
.toast-title[data-words] { font-size: 0; }
.toast-title[data-words]::after { content: attr(data-words); font-size: 1rem; }
#chat .edit-textarea { width: 100% !important; min-width: min(60vw, 420px); }
@supports (field-sizing: content) {  /* Gradio leaves its boxes as large as what was in them */
  :is(#box, #question) textarea,
  #chat .edit-textarea { field-sizing: content; height: auto !important; max-height: 12em; }
}
:is(#chat, .compared) .thought-group .title button { pointer-events: none; }
.clip-file .wrap[data-words] { font-size: 0; padding-top: 24px; }
.clip-file .wrap[data-words] > .or { display: none; }
.clip-file .wrap[data-words]::after { content: attr(data-words); font-size: 1rem; padding: 0 8px; text-align: center; }
.figures { display: flex; flex-wrap: wrap; gap: 8px; }
.figures figure { margin: 0 !important; max-width: 100%; }
.figures img { display: block; max-width: 100%; max-height: 240px; margin: 0 !important; border-radius: 4px; }
.figures figcaption { font-size: 0.85em; overflow-wrap: anywhere; }
#seen_title h2 { font-size: 1.15rem; margin: 0; }
:is(#seen, .preview) .figures { align-items: end; }
:is(#seen, .preview) .figures figure { width: min-content; min-width: min(320px, 100%); }
#chat .figures img { max-height: 160px; }
:is(#chat, .compared) .bot .figures img { max-height: 300px; }
.strip { overflow-x: auto; }
.strip .figures { flex-wrap: nowrap; }
:is(#seen, .preview) .strip figure { flex: 0 0 auto; width: auto; min-width: 0; }
:is(#chat, .compared) .strip .figures img, .strip .figures img { max-height: 100px; max-width: none; }
.problem { color: #b00020 !important; font-weight: 600; overflow-wrap: anywhere; }
.dark .problem { color: #ff8a80 !important; }
.message.html { padding: 8px 12px; }
.note { font-size: 0.9em; }
.message:has(.timing) { padding: 0 4px; border: 0; box-shadow: none; background: none; }
.timing { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
:is(#box, #question) .thumbnail-item { width: 56px; height: 56px; }
:is(#box, #question) .thumbnail-item img { object-fit: contain; }
@media (max-width: 640px) {
  .gradio-container .main { padding: 12px !important; }
  .gradio-container main { padding: 0 !important; }
  #header { gap: 4px 8px; }
  #header #title h1 { font-size: 1.1rem; }
  #header #title { flex: 1 1 auto; }
  #strip { flex-basis: 100%; order: 3; }
  #chat { height: calc(100vh - 450px) !important; }
  #chat .examples { gap: 8px; }
  #chat .example { padding: 4px 8px; }
  #chat .example :is(img, .example-image-container) { width: 32px; height: 32px; }
  #actions { gap: 8px; }
  #actions button { padding-inline: 10px; font-size: 0.9rem; }
}
.total { font-variant-numeric: tabular-nums; }
"""
