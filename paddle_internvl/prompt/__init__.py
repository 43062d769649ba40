"""Prompts: text and token ids only, no Paddle, no pictures."""
