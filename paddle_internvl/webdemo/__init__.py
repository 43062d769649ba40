"""The web demo: a page on Gradio over an engine in the same process."""

from paddle_internvl import import_hook


def _skip_stub_files(component_meta) -> None:
    """Gradio writes the .pyi stub file of every component anew whenever it is imported: two fifths of its import, and
    only an editor needs these files."""
    component_meta.create_or_modify_pyi = lambda *_: None


import_hook.install("gradio.component_meta", after=_skip_stub_files)
