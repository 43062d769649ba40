"""Names of the special tokens that InternVL adds to its language models' vocabularies. Ids come from the tokenizer."""

IMAGE_PLACEHOLDER = "<image>"  # what users write where a picture belongs
IMAGE_TOKEN = "<IMAGE_TOKEN>"  # LMDeploy's mark for it, which the pipeline takes
IMG_START, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
GROUNDING = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")  # users may write these in a question
ADDED = (IMG_START, IMG_END, IMG_CONTEXT, "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")  # upstream's order
