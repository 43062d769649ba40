"""Continuous batching: requests, scheduler, vision, prefill and decode, paged KV cache."""
