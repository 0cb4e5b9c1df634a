"""The word tokenizer: every word of the world is one token."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vidgen_moving_shapes.captions import WORDS

START, END, PADDING, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|padding|>", "<|unknown|>"
MAX_LENGTH = 77


def build_tokenizer(end_last: bool = False) -> PreTrainedTokenizerFast:
    """Lower case, split at spaces and punctuation, framed by the start and end tokens as CLIP does.

    Args:
        end_last: The end token has the highest number, as in CLIP's own tokenizer, instead of 2.
    """
    symbols = (PADDING, START, UNKNOWN, *WORDS, END) if end_last else (PADDING, START, END, UNKNOWN, *WORDS)
    vocabulary = {word: index for index, word in enumerate(symbols)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=START,
        eos_token=END,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        model_max_length=MAX_LENGTH,
    )
