"""Do the legs of a sweep agree with a plain PyTorch loop? One epoch per ratio on the same split, without Trainer.

The loop has its own loss (the weighted sum over a batch divided by its number of examples), optimizer step and schedule; it
takes the split, the tokens and the order of batches from the sweep. Reads a sweep with one seed and prints precision and
recall of both at the lowest, the natural and the highest ratio:

    weighloss sweep --train_file sms_spam.csv --output_dir sms_sweep
    python benchmarks/plain_loop.py sms_sweep --train_file sms_spam.csv
"""

import argparse

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
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils import logging

from weighloss import RatioSweep
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.demo_data import demo_model

BATCH_SIZE = 16


def plain_loop(data, tokenizer, ratio: float, positive: int, seed: int, learning_rate: float) -> tuple[float, float]:
    train, validation = data["train"], data["validation"]
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(demo_model(), num_labels=2).train()
    weights = np.where(np.array(train["label"][:]) == positive, ratio, 1.0)
    weights = torch.tensor(weights / weights.mean(), dtype=torch.float32)
    collate = DataCollatorWithPadding(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    # A data loader draws a seed for its workers before the first batch.
    torch.empty((), dtype=torch.int64).random_()
    lengths = [len(tokens) for tokens in train["input_ids"]]
    batches = torch.tensor(get_length_grouped_indices(lengths, BATCH_SIZE)).split(BATCH_SIZE)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
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
    return (
        precision_score(truth, predicted, pos_label=positive, zero_division=0),
        recall_score(truth, predicted, pos_label=positive),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep_dir", help="Output folder of the sweep.")
    parser.add_argument("--train_file", help="The sweep's training file. Default: the built-in sentences.")
    parser.add_argument("--max_seq_length", type=int, default=128, help="The sweep's.")
    parser.add_argument("--learning_rate", type=float, default=5e-5, help="The sweep's.")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    sweep = RatioSweep.load(options.sweep_dir)
    data_args = DataArguments(train_file=options.train_file, max_seq_length=options.max_seq_length)
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    data = tokenize(load_data(data_args), tokenizer, data_args)
    ratios = sorted({min(sweep.ratios), sweep.natural_ratio, max(sweep.ratios)})

    print("| w_r | sweep: precision / recall | plain loop: precision / recall |")
    print("|---|---|---|")
    for point in [point for point in sweep.points if point.ratio in ratios]:
        precision, recall = plain_loop(
            data, tokenizer, point.ratio, sweep.positive_label, point.seed, options.learning_rate
        )
        swept = f"{point.precision:.3f} / {point.recall:.3f}"
        print(f"| {point.ratio:.4g} | {swept} | {precision:.3f} / {recall:.3f} |", flush=True)


if __name__ == "__main__":
    main()
