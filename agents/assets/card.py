"""The model card of the shipped language model, written from what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# tiny: a {parameters:,}-parameter language model of short reviews

A Llama-style causal LM ({settings[num_layers]} layers, width {settings[hidden_size]}, {settings[num_heads]} heads, \
{settings[max_tokens]} positions, tied embeddings) over the 2,048-token byte-level BPE of \
`textenvs/assets/tokenizer.json`. It exists so that `TextGen-v0` has a policy that starts from English, small enough \
to train with reinforcement learning on two CPU cores in minutes. It writes fluent-looking reviews with little sense. \
Use it for nothing else.

- **Licence**: Apache-2.0, as the project.
- **Data**: {train_reviews:,} training reviews ({train_tokens:,} tokens) of `textenvs/assets/reviews.jsonl.gz`, \
sampled by this project from SmolLM2-135M-Instruct (Apache-2.0). No human text is in it.
- **Training**: {steps:,} updates of {settings[batch_size]} reviews, {settings[num_epochs]} epochs, the best on a dev \
slice of the training rows kept (epoch {best_epoch}); {seconds:,} s of one core. AdamW; what is kept is an \
exponential average of the weights (decay {settings[average_decay]}). Dropout {settings[dropout]} in training only; in \
{settings[swap_share]:.0%} of the reviews the subject is swapped for a related one.
- **Rebuild**: `python -m agents.assets.build` (within 0.2 % of the numbers below; same bytes are not promised). With \
the vector instructions of an older processor, AVX2 in place of AVX-512 and AMX, both perplexities of \
this model were the same to 0.002 %, and its weights to 0.03 %.

| held-out perplexity per token | this model | interpolated trigram | lower by |
|---|---|---|---|
| all tokens but the first | {model_heldout:.2f} | {trigram_heldout:.2f} | {heldout_gain:.1%} |
| after the opening | {model_heldout_rest:.2f} | {trigram_heldout_rest:.2f} | {heldout_rest_gain:.1%} |

Held-out reviews have a subject or an opening that training never saw. The trigram (`agents/assets/trigram.py`) has \
the same training tokens and its weights from the same dev slice. {copied_share:.1%} of 200 samples share 12 \
consecutive words with the training text (of 200 held-out reviews {heldout_copied_share:.1%} do).

**Limits**: it knows 32 subjects, invents words now and then, and repeats the prejudices of its source.

## The first {num_samples} samples, unselected (training openings, temperature 1, seed 2)

{samples}
"""


def model_card(facts: Mapping[str, Any], samples: Sequence[str]) -> str:
    """The card as Markdown.

    Args:
        facts: what measurements.json holds.
        samples: texts, shown indented so that nothing in them is markup.
    """
    shown = "\n".join("    " + "".join(c if c.isprintable() else " " for c in text) for text in samples)
    return _CARD.format(**facts, num_samples=len(samples), samples=shown)
