"""Chat: the model cards' chat, OpenAI-style messages, LMDeploy's pipeline."""
