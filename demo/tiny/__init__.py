"""How the bundled checkpoint is made: scenes, questions, tokenizer, training, export, evaluation."""
