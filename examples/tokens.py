"""Token classification: which words of a sentence are code? The ratio is chosen to miss few of them.

The data are sentences from the docstrings of installed Python packages in which the authors put code between backticks.
The backticks are removed, and the model has to find where they were. The model is MiniLM, from the `demo` extra. Nothing is
downloaded.

    python examples/tokens.py             # three minutes of one core; all results go to tokens/
"""

import re

from datasets import ClassLabel, Features, List, Value
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    pipeline,
    set_seed,
)

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, reports
from weighloss.cli.demo_data import demo_data, demo_model

names = ["prose", "code"]
model_name = demo_model()
tokenizer = AutoTokenizer.from_pretrained(model_name)


def label_tokens(row: dict) -> dict:
    """The tokens of a sentence without its backticks, with the label of each: 1 between backticks, 0 elsewhere."""
    # Markup around the backticks, as in :func:`fit` and [`fit`], would give them away.
    text = re.sub(r":[a-z:]+:(?=`)|\[(?=`)|(?<=`)\]", "", row["text"])
    parts = re.split(r"`+([^`]+)`+", text)  # prose and code in turn
    words = [(word, i % 2) for i, part in enumerate(parts) for word in part.split()]
    tokens = tokenizer([word for word, _ in words], is_split_into_words=True, truncation=True, max_length=64)
    # Labels of −100 count neither in the weights nor in the loss.
    labels = [-100 if word is None else words[word][1] for word in tokens.word_ids()]
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "labels": labels}


sentences = demo_data(num_train=3600, num_validation=1400)
ids, label = List(Value("int64")), List(ClassLabel(names=names))
# A sentence without a backtick may contain code that nobody marked.
data = sentences.filter(lambda row: re.search(r"`[^`]+`", row["text"])).map(
    label_tokens,
    remove_columns=["text", "label"],
    features=Features({"input_ids": ids, "attention_mask": ids, "labels": label}),
)

# The head of the model is drawn at random. With a seed it is the same in every run, so that the same command can resume.
set_seed(0)
callback = RatioSweepCallback(["unweighted", "sqrt", "natural", 10], choose="recall>=0.85")
trainer = WeightedLossTrainer(
    model=AutoModelForTokenClassification.from_pretrained(model_name, id2label=dict(enumerate(names))),
    args=WeightedLossConfig(
        "tokens",
        positive_label="code",
        learning_rate=2e-4,
        per_device_eval_batch_size=64,
        save_strategy="no",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorForTokenClassification(tokenizer),
    processing_class=tokenizer,
    callbacks=[callback],
)
print(reports.imbalance(trainer.class_weights, names))
trainer.train()
print(reports.table(callback.sweep))
print(callback.sweep.choose())

# The model of the chosen ratio is in tokens/. Does it find code in sentences whose authors marked none?
find = pipeline("token-classification", "tokens", aggregation_strategy="first")
for text in sentences["validation"].filter(lambda row: "`" not in row["text"])["text"][:8]:
    code = [text[found["start"] : found["end"]] for found in find(text) if found["entity_group"] == "code"]
    print(f"{', '.join(code) or 'no code'}: {text}")
