"""Whether two checkpoint folders, or a folder and the reference, compute the same thing, stage by stage."""
