"""Do a sweep's legs agree with a plain PyTorch loop? One epoch per ratio on the same split, without Trainer or weighloss.

The loop has its own loss (a weighted sum over the batch's number of examples), its own batches and schedule; it shares
only the data's split and tokens. Prints precision and recall of both, on the built-in sentences or on a file:

    python benchmarks/plain_loop.py --train_file sms_spam.csv
"""

import argparse
import tempfile

import numpy as np
import torch
from sklearn.metrics import precision_score, recall_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
    set_seed,
)
from transformers.utils import logging

from weighloss import RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer
from weighloss.data import DataArguments, load_data, tokenize
from weighloss.model import builtin_model


def load_model():
    return AutoModelForSequenceClassification.from_pretrained(builtin_model(), num_labels=2)


def plain_loop(
    train, validation, tokenizer, ratio: float, learning_rate: float, seed: int = 42
) -> tuple[float, float]:
    set_seed(seed)
    model = load_model().train()
    labels = np.array(train["label"][:])
    weights = np.where(labels == 1, ratio, 1.0)
    weights = torch.tensor(weights / weights.mean(), dtype=torch.float32)
    collate = DataCollatorWithPadding(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    batches = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).split(16)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
    # The Trainer's data loader draws a seed for its workers before the first step.
    torch.empty((), dtype=torch.int64).random_()
    for rows in batches:
        inputs = collate([train[int(i)] for i in rows])
        target = inputs.pop("labels")
        losses = torch.nn.functional.cross_entropy(model(**inputs).logits, target, reduction="none")
        (weights[rows] * losses).sum().div(len(rows)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    model.eval()
    predicted = []
    with torch.no_grad():
        for start in range(0, len(validation), 64):
            inputs = collate([validation[i] for i in range(start, min(start + 64, len(validation)))])
            inputs.pop("labels")
            predicted += model(**inputs).logits.argmax(-1).tolist()
    truth = validation["label"][:]
    return precision_score(truth, predicted, zero_division=0), recall_score(truth, predicted)


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
    tokenizer = AutoTokenizer.from_pretrained(builtin_model())
    data = tokenize(load_data(data_args), tokenizer, data_args)
    counts = np.bincount(data["train"]["label"][:])
    natural = counts[0] / counts[1]
    callback = RatioSweepCallback(ratios=[natural / 100, natural, natural * 100])
    WeightedLossTrainer(
        model_init=load_model,
        args=WeightedLossConfig(
            tempfile.mkdtemp(),
            learning_rate=options.learning_rate,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        callbacks=[callback],
    ).train()

    print("| w_r | sweep: precision / recall | plain loop: precision / recall |")
    print("|---|---|---|")
    for point in callback.sweep.points:
        precision, recall = plain_loop(
            data["train"], data["validation"], tokenizer, point.ratio, options.learning_rate
        )
        print(
            f"| {point.ratio:.4g} | {point.precision:.3f} / {point.recall:.3f} | {precision:.3f} / {recall:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
