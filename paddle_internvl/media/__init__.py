"""Media: pictures and clips from paths, URLs, data URLs, bytes and requests, as RGB PIL images.

The caller's own media:   `opening` (one message part) over `images`, `video`, `urls`.
Media of untrusted input: `loader` (all media of a request) over `fetcher`, `file_urls`, `picture_checks`,
                          `clip_decoder`. Limits (`limits`) are checked before a picture or frame is decoded.
Shared: `options` (tile and frame options), `data_urls`, `errors`.
"""
