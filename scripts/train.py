"""One fine-tune at one weight ratio, the natural one or the one that a sweep showed, for as many epochs as you like.

python scripts/train.py --train_file spam.csv --text_column_names sms --positive_label spam \
        --weight_ratio 20 --num_train_epochs 3 --output_dir spam_model
python scripts/train.py --help                            # every other flag
"""

from weighloss import WeightedLossConfig
from weighloss.cli.data import DataArguments
from weighloss.cli.model import ModelArguments
from weighloss.cli.main import finish, make_trainer, run, say_evaluation


def train(model_args: ModelArguments, data_args: DataArguments, args: WeightedLossConfig) -> None:
    trainer, test = make_trainer(model_args, data_args, args)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    metrics = trainer.evaluate()
    trainer.save_metrics("eval", metrics)
    say_evaluation(trainer, metrics)
    finish(trainer, data_args, test)


if __name__ == "__main__":
    run(
        train,
        (ModelArguments, DataArguments, WeightedLossConfig),
        description=f"{__doc__.splitlines()[0]} Flags come in this order: model, data, transformers' training "
        "arguments, class weights.",
        usage="%(prog)s [--train_file FILE --text_column_names COLUMN --positive_label NAME] [--weight_ratio R] [flags]",
        output_dir="train_output",
        save_strategy="no",
    )
