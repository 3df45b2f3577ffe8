"""Images: a small vision transformer from scratch, with a sweep that trains for several epochs at every ratio.

The data are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; the question is whether one is an 8, as 10 of 100
are. Nothing is downloaded.

    python examples/images.py             # half a minute of one core; all results go to images/
"""

from datasets import ClassLabel, Dataset
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification, set_seed

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer, report

num_epochs = 15
digits = load_digits()
data = Dataset.from_dict(
    {"pixel_values": (digits.images[:, None] / 16).tolist(), "label": (digits.target == 8).astype(int).tolist()}
).cast_column("label", ClassLabel(names=["other", "eight"]))
data = data.train_test_split(test_size=0.4, stratify_by_column="label", seed=0)
held_out = data["test"].train_test_split(test_size=0.5, stratify_by_column="label", seed=0)


def make_trainer(output_dir: str, callbacks: list | None = None, **kwargs) -> WeightedLossTrainer:
    """A trainer with a new model, always the same."""
    set_seed(0)
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=2)
    config.update({"num_attention_heads": 4, "intermediate_size": 128, "id2label": {0: "other", 1: "eight"}})
    return WeightedLossTrainer(
        model=ViTForImageClassification(config),
        args=WeightedLossConfig(
            output_dir,
            positive_label="eight",
            learning_rate=2e-3,
            warmup_steps=0.1,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=350,
            save_strategy="no",
            logging_strategy="no",
            **kwargs,
        ),
        train_dataset=data["train"],
        eval_dataset=held_out["train"],
        callbacks=callbacks,
    )


# From scratch there is nothing to see after one epoch, at whatever ratio.
callback = RatioSweepCallback(["unweighted", "sqrt", "natural", 30, 100], epochs_per_ratio=num_epochs)
make_trainer("images", [callback]).train()
print(report.table(callback.sweep))
choice = callback.sweep.choose("f1")
print(choice)

# A sweep's leg is the fine-tune on its own, bit for bit: this is the model that the table shows.
final = make_trainer("images/final", num_train_epochs=num_epochs, weight_ratio=choice.point.ratio)
final.train()
final.save_model()
metrics = final.evaluate(held_out["test"], metric_key_prefix="test")
print(
    f"On {len(held_out['test'])} digits that no choice saw, the model in images/final has "
    f"precision {metrics['test_precision']:.3f}, recall {metrics['test_recall']:.3f}, F1 {metrics['test_f1']:.3f}."
)
