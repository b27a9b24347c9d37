"""The tokenizer of a checkpoint folder, reduced to what prompts need."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from ..stream.errors import BadWeights

SEG_TOKEN = "[SEG]"


class FolderTokenizer:
    """Byte-level BPE from a folder's tokenizer.json; `size` counts its entries, added tokens included."""

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json"
        if not file.exists():
            raise BadWeights(f"{folder}: no tokenizer.json; copy the one that was released with these weights beside them")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more specific
            raise BadWeights(f"{file}: no tokenizer that can be read ({error}); copy the released one again") from error
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        seg = self._tokenizer.token_to_id(SEG_TOKEN)
        if seg is None:
            raise BadWeights(
                f"{file}: has no {SEG_TOKEN} token, which ends every class name and sentence; use the tokenizer PSALM was trained with"
            )
        self.seg_token_id: int = seg

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, no special tokens added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids
