"""A training script for one weight ratio, with the compute_loss override that the documentation of transformers shows.

benchmarks/speed.py runs it once per ratio. Texts are padded to the maximum length; with --tricks they are padded to the
longest of their batch, and batches contain texts of similar length.
"""

import argparse
import tempfile

import torch
from datasets import load_dataset
from sklearn.metrics import precision_score, recall_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from weighloss.cli.demo_data import demo_model

MAX_LENGTH = 128

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train_file", required=True)
parser.add_argument("--validation_file", required=True)
parser.add_argument("--weight_ratio", type=float, required=True)
parser.add_argument("--tricks", action="store_true")
options = parser.parse_args()


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss_fct = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, options.weight_ratio]))
        loss = loss_fct(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def compute_metrics(prediction):
    predicted = prediction.predictions.argmax(-1)
    return {
        "precision": precision_score(prediction.label_ids, predicted, zero_division=0),
        "recall": recall_score(prediction.label_ids, predicted),
    }


tokenizer = AutoTokenizer.from_pretrained(demo_model())
padding = False if options.tricks else "max_length"
data = load_dataset("csv", data_files={"train": options.train_file, "validation": options.validation_file})
data = data.map(
    lambda rows: tokenizer(rows["text"], truncation=True, max_length=MAX_LENGTH, padding=padding), batched=True
)
trainer = WeightedTrainer(
    model=AutoModelForSequenceClassification.from_pretrained(demo_model(), num_labels=2),
    args=TrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=1,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        train_sampling_strategy="group_by_length" if options.tricks else "random",
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()
print(trainer.evaluate())
