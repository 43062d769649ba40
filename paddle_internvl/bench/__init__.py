"""Load on a running server, and what it did to it: `traffic` is planned, `load` sends it, `report` counts.

In: a URL and numbers. Out: percentiles. Talks HTTP only: any server of OpenAI's API can be asked.
"""
