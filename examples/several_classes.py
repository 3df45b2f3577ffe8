"""Several classes: one ratio decides the weights of all of them. What do the rare ones gain, and the common ones lose?

The data are sentences from the docstrings of four installed Python packages, 60, 25, 10 and 5 of 100; the task is to say
which package a sentence is from. The model is MiniLM, from the `demo` extra. Nothing is downloaded.

    python examples/several_classes.py    # four minutes of one core; all results go to several_classes/
"""

from sklearn.metrics import recall_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

from weighloss import RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, reports
from weighloss.cli.demo_data import demo_data, demo_model

model_name = demo_model()
data = demo_data(
    num_validation=800,
    package_shares={"pandas": 0.6, "matplotlib": 0.25, "scikit-learn": 0.1, "huggingface_hub": 0.05},
)
names = data["train"].features["label"].names
tokenizer = AutoTokenizer.from_pretrained(model_name)
data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)

# The head of the model is drawn at random. With a seed it is the same in every run, so that the same command can resume.
set_seed(0)
trainer = WeightedLossTrainer(
    model=AutoModelForSequenceClassification.from_pretrained(model_name, num_labels=len(names)),
    args=WeightedLossConfig(
        "several_classes", learning_rate=1e-4, per_device_eval_batch_size=64, save_strategy="no", logging_strategy="no"
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
    # The ratio is the weight of the rarest class over that of the commonest; the other classes are in between.
    callbacks=[RatioSweepCallback(["unweighted", "sqrt", "natural"])],
)
print(reports.imbalance(trainer.class_weights, names))
trainer.train()

# Precision and recall of the table are averages over the classes.
sweep = RatioSweep.load("several_classes")
print(reports.table(sweep))

# The logits of every leg are on disk, so that other metrics can be computed later.
print("\nRecall of each class, and its weight:")
print(f"{'w_r':>6}" + "".join(f"{name:>24}" for name in names))
for point in sweep.points:
    logits, labels = sweep.predictions(point)
    recalls = recall_score(labels, logits.argmax(axis=1), average=None)
    weights = trainer.weights_at(point.ratio).weights
    cells = [f"{recall:.3f} (weight {weight:.2f})" for recall, weight in zip(recalls, weights, strict=True)]
    print(f"{point.ratio:6.3g}" + "".join(f"{cell:>24}" for cell in cells))
