"""More than one process: a Ray cluster of this machine or of many (`cluster`), and files of questions (`batch`).

Ray is an extra; nothing here imports it before it is needed.
"""
