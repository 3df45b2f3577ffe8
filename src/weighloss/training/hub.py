"""Pushing to the Hub: the model card, a trainer, a folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers.modelcard import extract_hyperparameters_from_trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import InvalidInputError, PushError, reason
from ..results.files import LEGS_FOLDER, LOCK_FILE, PREDICTIONS_FOLDER, SWEEP_FILE

# The first two as the Trainer has them. Nobody should have to unpickle what they download.
_NOT_PUSHED = [
    "_*",
    f"{PREFIX_CHECKPOINT_DIR}-*",
    TRAINING_ARGS_NAME,
    "*.tmp",
    LOCK_FILE,
    "sweep.yaml",  # with the paths of this machine
    f"{LEGS_FOLDER}/*",
    "runs/*",
]
_CARD = "README.md"


class Secret(str):
    """A token that no pickle and no representation shows: it pickles as None."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __repr__(self) -> str:
        return "'***'"


def refused_repository(trainer: Any, error: Exception) -> PushError:
    """What to raise when the client does not create a trainer's repository."""
    args, name = trainer.args, repo_name(trainer)
    return PushError(
        f"the repository {name} cannot be created on the Hub ({reason(error)}): check its name, the login and the network; "
        f"or push the folder later with {_push_command(args.output_dir, name, args.hub_private_repo, args.hub_revision)}."
    )


def repo_name(trainer: Any) -> str:
    """Name of the repository of a trainer, whether it exists already or not."""
    return trainer.hub_model_id or trainer.args.hub_model_id or Path(trainer.args.output_dir).absolute().name


def write_model_card(trainer: Any, **kwargs: Any) -> None:
    """See `WeightedLossTrainer.create_model_card`."""
    from ..reports.model_card import model_card  # needs libraries that take longer to import than the Trainer

    args, sweep, state = trainer.args, trainer.finished_sweep, trainer.state
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    hyperparameters, chart, evaluation = extract_hyperparameters_from_trainer(trainer), None, None
    if sweep is not None:
        hyperparameters |= {"num_epochs": sweep.epochs_per_ratio, "seed": sweep.operating_point.seed}
        rule = sweep.operating_point
        carries_it = rule.is_argmax or hasattr(model.config, "threshold")
        evaluation = rule.metrics if carries_it else rule.leg.metrics  # what the saved model does
        if sweep.folder is not None and sweep.folder.absolute() == Path(args.output_dir).absolute():
            chart = "precision_recall.png"
    elif all(runner.sweep is None for runner in trainer.runners()):  # else the last evaluation is that of another leg
        best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        evaluation = _logged(state, "eval", state.best_global_step if best else None)
    base_model = kwargs.get("finetuned_from") or model.config.name_or_path or None
    card = model_card(
        name=repo_name(trainer),
        model=model,
        class_weights=trainer.class_weights,
        label_names=trainer.class_names,
        because=_why_this_ratio(trainer),
        evaluation=evaluation,
        test=_logged(state, "test"),
        sweep=sweep,
        chart=chart,
        dataset=next(iter(_listed(kwargs.get("dataset"))), sweep.dataset if sweep else None),
        dataset_id=next(iter(_listed(kwargs.get("dataset_tags"))), None),
        hyperparameters=hyperparameters,
        base_model=None if base_model and os.path.isdir(base_model) else base_model,  # not a folder of this machine
        license=kwargs.get("license"),
        tags=[*_listed(kwargs.get("tags")), *_listed(getattr(trainer.model, "model_tags", None))],
        language=kwargs.get("language"),
    )
    card.save(Path(args.output_dir) / _CARD)


def push_trainer(
    trainer: Any,
    commit_message: str,
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    push_predictions: bool = False,
    **kwargs: Any,
) -> CommitInfo | None:
    """See `WeightedLossTrainer.push_to_hub`."""
    args = trainer.args
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    trainer.save_without_pushing()
    trainer.create_model_card(**kwargs)  # before the Hub is asked for anything: the folder is complete then
    if trainer.hub_model_id is None:
        trainer.init_hf_repo(token=token, private=private)
    if not trainer.is_world_process_zero():
        return None
    if (running := getattr(trainer, "push_in_progress", None)) is not None:  # of a checkpoint
        running.wait_until_done()
    return push_folder(
        args.output_dir,
        str(trainer.hub_model_id),
        token=token or args.hub_token,
        private=args.hub_private_repo if private is None else private,
        revision=revision or args.hub_revision,
        commit_message=commit_message,
        push_predictions=push_predictions,
        # The folder may contain the sweep of another training.
        leave_out=() if trainer.finished_sweep is not None else (SWEEP_FILE, "precision_recall*", "report.html"),
    )


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "End of training",
    push_predictions: bool = False,
    leave_out: Sequence[str] = (),
) -> CommitInfo:
    """Push an output folder, with model, card, charts and sweep, to a model repository of the Hub.

    Checkpoints and the pickled arguments of the Trainer are not pushed. Pushing again is safe: files that are there already
    are not uploaded again.

    Parameters
    ----------
    folder : path
    repo_id : str
        `user/model`, or `model` for your own; created if it does not exist.
    token : str, optional
        The token of `hf auth login` or of the variable HF_TOKEN when None.
    private : bool, optional
        Whether a repository that is created is private.
    revision : str, optional
        Branch to push to; created if it does not exist.
    commit_message : str
    push_predictions : bool, default False
        Whether to push logits and labels of the evaluation set too: `RatioSweep.from_hub` then has all results.
    leave_out : sequence of str
        Patterns of other files that are not pushed.

    Raises
    ------
    InvalidInputError
        When there is no such folder.
    PushError
        When the Hub refuses or cannot be reached; it says how to push again.
    """
    from ..reports.model_card import renamed

    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder} to push: give the output folder of a training.")
    ignored = [*_NOT_PUSHED, *leave_out, *([] if push_predictions else [f"{PREDICTIONS_FOLDER}/*"])]
    try:
        api = HfApi(token=token.strip() if token else None)
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(full_id, branch=revision, exist_ok=True)
        if (card := folder / _CARD).exists():  # it may have been written before the model had this name
            card.write_text(renamed(card.read_text(encoding="utf-8"), full_id), encoding="utf-8")
        return api.upload_folder(
            repo_id=full_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            ignore_patterns=ignored,
            delete_patterns=TRAINING_ARGS_NAME,  # a push of a checkpoint may have uploaded them
        )
    except Exception as error:  # whatever the client raises: the results are in the folder
        raise PushError(
            f"{folder} was not pushed to {repo_id} ({reason(error)}): everything is in the folder; check login and network "
            f"and push it again with {_push_command(folder, repo_id, private, revision, push_predictions)}."
        ) from None


def _logged(state: Any, prefix: str, step: int | None = None) -> dict[str, float] | None:
    """Metrics of the last evaluation with a prefix, at a step if one is given."""
    for entry in reversed(state.log_history):
        if f"{prefix}_loss" in entry and step in (None, entry["step"]):
            return {name.removeprefix(f"{prefix}_"): value for name, value in entry.items()}
    return None


def _why_this_ratio(trainer: Any) -> str:
    ratio = getattr(trainer.args, "weight_ratio", None)
    if trainer.finished_sweep is not None:
        return trainer.finished_sweep.kept_because
    if getattr(trainer.args, "class_weights", None) is not None:
        return "explicit class weights"
    if ratio is None and trainer.train_dataset is None and hasattr(trainer.model.config, "class_weights"):
        return "the ratio that the loaded model was trained with"
    named = {None: "the natural ratio", "natural": "the natural ratio", "unweighted": "unweighted"}
    return named.get(ratio, f"the scheme {ratio}" if isinstance(ratio, str) else "set by hand")


def _push_command(
    folder: str | Path, repo_id: str, private: bool | None, revision: str | None, push_predictions: bool = False
) -> str:
    words = ["weighloss", "push", str(folder), "--hub_model_id", repo_id]
    words += [] if private is None else ["--hub_private_repo", str(private)]
    words += [] if revision is None else ["--hub_revision", revision]
    words += ["--push_predictions", "True"] if push_predictions else []
    return f"`{shlex.join(words)}`"


def _listed(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else list(values or ())
