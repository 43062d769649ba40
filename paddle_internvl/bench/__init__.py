"""Benchmarks: a model's stages beside PyTorch, growth of time and memory with the input, and load on a server.

`model` runs the `stages` of both sides in `trials` and makes `figures`; `growth` fits exponents; `traffic` plans
requests, `load` sends them, `report` makes percentiles. `machine` measures the peaks of the machine.
"""
