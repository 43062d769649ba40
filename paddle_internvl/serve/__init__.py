"""The HTTP server: OpenAI's routes over the engine, guarded against untrusted clients."""
