"""Does gradient accumulation change the weight ratio? One epoch at w_r = 60, steps of 16 examples cut in three ways.

Trains with WeightedLossTrainer and with the compute_loss override that the documentation of transformers shows, on the
same data and with the same seed and steps, and prints precision and recall of each. On the built-in sentences, or on a
file:

    python benchmarks/accumulation.py --train_file sms_spam.csv
"""

import argparse
import tempfile

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, Trainer
from transformers.utils import logging

from weighloss import WeightedLossConfig, WeightedLossTrainer, classification_metrics
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import demo_model

RATIO = 60.0
SPLITS = [(16, 1), (4, 4), (1, 16)]


class DocumentedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.get("logits")
        loss_fct = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, RATIO], device=logits.device))
        loss = loss_fct(logits.view(-1, self.model.config.num_labels), labels.view(-1))
        return (loss, outputs) if return_outputs else loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", help="CSV, TSV, JSON or Parquet. Default: the built-in sentences.")
    parser.add_argument("--max_train_samples", type=int)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    data_args = DataArguments(
        train_file=options.train_file, max_train_samples=options.max_train_samples, max_seq_length=48
    )
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data = tokenize(load_data(data_args), tokenizer, data_args)

    print("| trainer | micro-batch x accumulation | precision | recall |")
    print("|---|---|---|---|")
    for name, trainer_class in (
        ("WeightedLossTrainer", WeightedLossTrainer),
        ("documented override", DocumentedTrainer),
    ):
        for micro_batch, accumulation in SPLITS:
            trainer = trainer_class(
                model_init=lambda: AutoModelForSequenceClassification.from_pretrained(demo_model(), num_labels=2),
                args=WeightedLossConfig(
                    tempfile.mkdtemp(),
                    weight_ratio=RATIO,
                    learning_rate=options.learning_rate,
                    num_train_epochs=1,
                    per_device_train_batch_size=micro_batch,
                    gradient_accumulation_steps=accumulation,
                    per_device_eval_batch_size=64,
                    train_sampling_strategy="group_by_length",
                    save_strategy="no",
                    disable_tqdm=True,
                    logging_strategy="no",
                    report_to="none",
                ),
                train_dataset=data["train"],
                eval_dataset=data["validation"],
                processing_class=tokenizer,
                compute_metrics=classification_metrics(),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            metrics = trainer.evaluate()
            scores = f"{metrics['eval_precision']:.3f} | {metrics['eval_recall']:.3f}"
            print(f"| {name} | {micro_batch} x {accumulation} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
