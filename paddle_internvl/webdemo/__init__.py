"""The web demo: a page on Gradio over an engine in the same process."""
