"""C++ kernels for the CPU: sources in `csrc`, built on first use. float32 arithmetic on weights of 32, 16, 8 or 4 bits.

In: arrays and tensors. Out: tensors. Nothing here knows a model; without a compiler nothing here runs, and the plain
forms in `models` do.
"""
