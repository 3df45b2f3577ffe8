"""An ordinary fine-tuning script of transformers with another trainer, whose loss weights the classes.

The data are sentences from the docstrings of installed Python packages; the task is to find scikit-learn's, 12 of 100.
The model is MiniLM, from the `demo` extra. Nothing is downloaded.

    python examples/three_lines.py        # three minutes of one core; the model goes to three_lines/

The third line is the callback that sweeps over the ratio: see sweep_and_choose.py.
"""

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainingArguments,
    pipeline,
)

from weighloss import WeightedLossTrainer  # the first line that is not in your script
from weighloss.cli.demo_data import demo_data, demo_model

model_name = demo_model()
data = demo_data()
names = data["train"].features["label"].names

tokenizer = AutoTokenizer.from_pretrained(model_name)
data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)
model = AutoModelForSequenceClassification.from_pretrained(
    model_name, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
)

trainer = WeightedLossTrainer(  # the second: it was Trainer(
    model=model,
    # With plain TrainingArguments the weight ratio is the natural one, n_negative / n_positive, at which both classes
    # contribute the same to the loss. WeightedLossConfig is the same with a weight_ratio of your own.
    args=TrainingArguments("three_lines", learning_rate=1e-4, num_train_epochs=2, save_strategy="no"),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
)
trainer.train()

# Precision and recall are those of label id 1; no compute_metrics is needed.
metrics = trainer.evaluate()
print(
    f"Training labels {trainer.class_weights.counts.tolist()}, so the weight ratio is {trainer.class_weights.ratio:.2f}."
)
print(f"Precision {metrics['eval_precision']:.3f}, recall {metrics['eval_recall']:.3f}, F1 {metrics['eval_f1']:.3f}.")

# The saved model is an ordinary one: no weighloss is needed to load it.
trainer.save_model()
classify = pipeline("text-classification", "three_lines")
for text in (
    "Fit the estimator and predict the clusters of the samples.",
    "Draw a line between two points of the axes.",
):
    answer = classify(text)[0]
    print(f"{answer['label']} ({answer['score']:.2f}): {text}")
