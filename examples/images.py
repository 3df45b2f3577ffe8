"""Images: a small vision transformer from scratch, with a sweep that trains for several epochs at every ratio.

The data are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; the task is to find the eights, 10 of 100. Nothing is
downloaded.

    python examples/images.py             # half a minute of one core; all results go to images/
"""

from datasets import ClassLabel, Dataset
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification, set_seed

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, reports

digits = load_digits()
data = Dataset.from_dict(
    {"pixel_values": (digits.images[:, None] / 16).tolist(), "label": (digits.target == 8).astype(int).tolist()}
).cast_column("label", ClassLabel(names=["other", "eight"]))
data = data.train_test_split(test_size=0.4, stratify_by_column="label", seed=0)
held_out = data["test"].train_test_split(test_size=0.5, stratify_by_column="label", seed=0)
validation, test = held_out["train"], held_out["test"]

set_seed(0)
config = ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=2)
config.update({"num_attention_heads": 4, "intermediate_size": 128, "id2label": {0: "other", 1: "eight"}})
# A model from scratch has learned nothing after one epoch, whatever the ratio.
callback = RatioSweepCallback(["unweighted", "sqrt", "natural", 30, 100], epochs_per_ratio=15)
trainer = WeightedLossTrainer(
    model=ViTForImageClassification(config),
    args=WeightedLossConfig(
        "images",
        positive_label="eight",
        learning_rate=2e-3,
        warmup_steps=0.1,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=350,
        save_strategy="no",
        logging_strategy="no",
    ),
    train_dataset=data["train"],
    eval_dataset=validation,
    callbacks=[callback],
)
trainer.train()
print(reports.table(callback.sweep))
print(callback.sweep.choose())

# The trainer holds the model of the chosen ratio now, and has saved it.
metrics = trainer.evaluate(test, metric_key_prefix="test")
print(
    f"On {len(test)} held-out digits the model in images/ has precision {metrics['test_precision']:.3f}, "
    f"recall {metrics['test_recall']:.3f}, F1 {metrics['test_f1']:.3f}."
)
