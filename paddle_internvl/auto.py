"""PaddleNLP's Auto classes by the lean import: `from paddle_internvl import AutoModel` takes half the time of
`from paddlenlp.transformers import AutoModel`, and gives the same class."""

from paddle_internvl import paddlenlp_import

paddlenlp_import.import_lean()

from paddlenlp.transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: E402

__all__ = ["AutoConfig", "AutoModel", "AutoTokenizer"]
