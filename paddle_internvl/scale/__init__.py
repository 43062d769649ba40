"""Ray clusters (`cluster`) and batch inference over files (`batch`, `rows`). Ray is imported on first use."""
