"""Which ratio finds 65 of 100? A sweep over ratios, the choice, and a test of the chosen model on held-out data.

The data are sentences from the docstrings of installed Python packages; the task is to find scikit-learn's, 12 of 100.
The model is MiniLM, from the `demo` extra. Nothing is downloaded.

    python examples/sweep_and_choose.py   # nine minutes of one core; all results go to sweep_and_choose/

Stop it whenever you like: the same command resumes.
"""

from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, reports
from weighloss.cli.demo_data import demo_data, demo_model

requirement = "recall>=0.65"
model_name = demo_model()
data = demo_data(num_validation=1200)
names = data["train"].features["label"].names
tokenizer = AutoTokenizer.from_pretrained(model_name)
data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)

# The ratio is chosen on one half of the held-out sentences. Metrics on that half are optimistic, because the choice was
# made there; the other half says how good the model is.
held_out = data["validation"].train_test_split(test_size=0.5, stratify_by_column="label", seed=0)
validation, test = held_out["train"], held_out["test"]

# The head of the model is drawn at random. With a seed it is the same in every run, so that the same command can resume.
set_seed(0)
callback = RatioSweepCallback(["unweighted", "sqrt", "natural", 20], epochs_per_ratio=2, choose=requirement)
trainer = WeightedLossTrainer(
    model=AutoModelForSequenceClassification.from_pretrained(model_name, id2label=dict(enumerate(names))),
    args=WeightedLossConfig(
        "sweep_and_choose",
        positive_label="scikit-learn",
        learning_rate=1e-4,
        warmup_steps=0.1,  # with a large weight, the first steps are unstable at the full learning rate
        per_device_eval_batch_size=64,
        save_strategy="no",
    ),
    train_dataset=data["train"],
    eval_dataset=validation,
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
    callbacks=[callback],
)
trainer.train()
print(reports.table(callback.sweep))

# Where no ratio meets the requirement, this names the nearest one.
print(callback.sweep.choose(requirement))

# The trainer holds the model of the chosen ratio now, and has saved it.
metrics = trainer.evaluate(test, metric_key_prefix="test")
print(
    f"On held-out sentences this model has precision {metrics['test_precision']:.3f}, "
    f"recall {metrics['test_recall']:.3f}."
)
print("The model, sweep.json and the charts are in sweep_and_choose/.")
