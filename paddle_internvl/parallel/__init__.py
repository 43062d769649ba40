"""One model on several devices: tensor parallel over processes, or layers placed on the cards of one process."""
