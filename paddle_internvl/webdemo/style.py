"""How the page looks, beyond Gradio's theme: CSS that stands in the page itself, so that any host of Gradio has it."""

CSS = """
.gradio-container { max-width: 1400px !important; }
.figures { display: flex; flex-wrap: wrap; gap: 8px; }
.figures figure { margin: 0; max-width: 100%; }
.figures img { display: block; max-width: 100%; max-height: 320px; margin: 0; border-radius: 4px; }
.figures figcaption { font-size: 0.85em; opacity: 0.85; overflow-wrap: anywhere; }
.strip .figures { flex-wrap: nowrap; overflow-x: auto; }
.strip figure { flex: 0 0 auto; }
.strip img { max-height: 110px; max-width: none; }
.problem { color: #b00020; font-weight: 600; overflow-wrap: anywhere; }
.dark .problem { color: #ff8a80; }
.note { opacity: 0.8; font-size: 0.9em; }
.total { font-variant-numeric: tabular-nums; }
"""
