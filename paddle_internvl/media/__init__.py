"""Pictures and clips from paths, URLs, data URLs and requests: limits are checked before anything is decoded."""
