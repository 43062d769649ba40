"""Readers: files of the benchmarks -> `Item`s, streamed and checked."""
