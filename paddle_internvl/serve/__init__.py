"""The HTTP server: OpenAI's routes over the engine, safe for strangers to call."""
