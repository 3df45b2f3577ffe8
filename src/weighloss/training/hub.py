from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import InvalidInputError, PushError, reason
from ..results.ratio_sweep import RatioSweep
from ..results.files import LOCK_FILE, PREDICTIONS_FOLDER, PREVIEW_FOLDER, SWEEP_FILE
from .weighting import WeightingTrainer

# The first two as the Trainer; nobody should have to unpickle what they download.
_NOT_PUSHED = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", TRAINING_ARGS_NAME, "*.tmp", LOCK_FILE, f"{PREVIEW_FOLDER}/*"]


class Secret(str):
    """A token that no pickle and no representation shows: it pickles as None."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __repr__(self) -> str:
        return "'***'"


class HubTrainer(WeightingTrainer):
    """A `Trainer` whose model card says how the classes were weighted, and which pushes what a sweep left on disk."""

    hub_model_id: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.hub_token:
            self.args.hub_token = Secret(self.args.hub_token.strip())

    def create_model_card(self, **kwargs: Any) -> None:  # type: ignore[override]
        """As `Trainer.create_model_card`, with the weighting, the sweep, the figures, and how to use the model.

        `dataset` is the data's name, `dataset_tags` its id on the Hub. Without a push nothing is asked of the Hub.
        """
        if not self.is_world_process_zero():
            return
        dataset, dataset_id = (_only(kwargs.pop(name, None)) for name in ("dataset", "dataset_tags"))
        if self.hub_model_id is None:
            kwargs.setdefault("license", "")  # else the base class asks the Hub for that of the base model
        super().create_model_card(**kwargs, dataset_tags=[])
        # Here, since scikit-learn and scipy take longer to import than all of weighloss.
        from ..reports.model_card import complete_card

        facts, folder = self._card_facts(), Path(self.args.output_dir).absolute()
        sweep: RatioSweep | None = facts["sweep"]
        inline = sweep is not None and sweep.folder is not None and sweep.folder.absolute() == folder
        complete_card(
            ModelCard.load(folder / "README.md"),
            name=self._repo_name,
            model=self.accelerator.unwrap_model(self.model, keep_torch_compile=False),
            chart="precision_recall.png" if inline else None,
            dataset=dataset or (sweep.dataset if sweep else None),
            dataset_id=dataset_id,
            **facts,
        ).save(folder / "README.md")

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As `Trainer.init_hf_repo`; what the Hub refuses is said in one sentence, before any training."""
        args = self.args
        token = token or args.hub_token
        if private is not None:
            args.hub_private_repo = private  # the base class takes it as an argument from transformers 5.23 on
        try:
            super().init_hf_repo(token.strip() if token else None)
        except Exception as error:  # whatever the client raises
            later = _how_to_push(args.output_dir, self._repo_name, args.hub_private_repo, args.hub_revision)
            raise PushError(
                f"the repository {self._repo_name} cannot be made on the Hub ({reason(error)}): check its name, the login "
                f"and the network; or push the folder later, {later}."
            ) from None

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        push_predictions: bool = False,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """As `Trainer.push_to_hub`: the model that the trainer holds, its card, charts and `sweep.json`.

        The sweep's predictions go along when asked; checkpoints and pickles do not. It always waits for the Hub.

        Raises
        ------
        PushError
            When the Hub refuses or cannot be reached; the folder has everything, and the message how to push it again.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        kwargs.setdefault("model_name", self._repo_name.split("/")[-1])
        kwargs.setdefault("license", None)  # that of the base model
        kwargs["tags"] = [*_listed(kwargs.get("tags")), *_listed(getattr(self.model, "model_tags", None))]
        self.create_model_card(**kwargs)  # before the Hub is asked for anything: the folder is then complete
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        return push_folder(
            self.args.output_dir,
            str(self.hub_model_id),
            token=token or self.args.hub_token,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            commit_message=commit_message or "End of training",
            push_predictions=push_predictions,
            # That of another training may lie in the folder.
            leave_out=() if self._card_facts()["sweep"] is not None else (SWEEP_FILE, "precision_recall*"),
        )

    @property
    def _repo_name(self) -> str:
        """What the repository is called, or is to be."""
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name

    def _card_facts(self) -> dict[str, Any]:
        """What the model card says of the weighting: arguments of `complete_card`."""
        ran = [driver.sweep for driver in self.drivers() if driver.sweep is not None]
        sweep = next((sweep for sweep in ran if sweep.kept_point is not None), None)
        evaluation: dict[str, Any] | None = None
        if sweep is not None and sweep.kept_point is not None:
            evaluation = sweep.kept_point.metrics
        elif not ran:  # after an interrupted sweep what was evaluated is not the model that the trainer holds
            best = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
            evaluation = self._logged("eval", self.state.best_global_step if best else None)
        return {
            "class_weights": self.class_weights,
            "label_names": self.class_names,
            "because": self._why_this_ratio(sweep),
            "evaluation": evaluation,
            "test": self._logged("test"),
            "sweep": sweep,
        }

    def _why_this_ratio(self, sweep: RatioSweep | None) -> str:
        if sweep is not None:
            return sweep.kept_because
        if getattr(self.args, "class_weights", None) is not None:
            return "explicit class weights"
        ratio = getattr(self.args, "weight_ratio", None)
        if ratio is None and self.train_dataset is None and hasattr(self.model.config, "class_weights"):
            return "that which the loaded model was trained with"
        named = {None: "the natural ratio", "natural": "the natural ratio", "unweighted": "unweighted"}
        return named.get(ratio, f"the scheme {ratio}" if isinstance(ratio, str) else "set by hand")

    def _logged(self, prefix: str, step: int | None = None) -> dict[str, float] | None:
        """The figures of the last evaluation with a prefix, at a step where one is given."""
        for entry in reversed(self.state.log_history):
            if f"{prefix}_loss" in entry and step in (None, entry["step"]):
                return {name.removeprefix(f"{prefix}_"): value for name, value in entry.items()}
        return None


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

    Checkpoints and the Trainer's pickled arguments stay where they are. Pushing again is safe: what is there already is
    not uploaded a second time.

    Parameters
    ----------
    folder : path
    repo_id : str
        `user/model`, or `model` for one's own; made where it does not exist.
    token : str, optional
        That of `hf auth login` or of the variable HF_TOKEN when None.
    private : bool, optional
        Whether a repository that is made is private.
    revision : str, optional
        Branch to push to; made where it does not exist.
    commit_message : str
    push_predictions : bool, default False
        Whether the evaluation set's logits and labels go along: `RatioSweep.from_hub` then has every figure.
    leave_out : sequence of str
        Patterns of more files that stay where they are.

    Raises
    ------
    InvalidInputError
        When there is no such folder.
    PushError
        When the Hub refuses or cannot be reached; it says how to push again.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder} to push: give the output folder of a training.")
    ignored = [*_NOT_PUSHED, *leave_out, *([] if push_predictions else [f"{PREDICTIONS_FOLDER}/*"])]
    try:
        api = HfApi(token=token.strip() if token else None)
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(full_id, branch=revision, exist_ok=True)
        _name_in_card(folder, full_id)
        return api.upload_folder(
            repo_id=full_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            ignore_patterns=ignored,
            delete_patterns=TRAINING_ARGS_NAME,  # a checkpoint's push may have taken them along
        )
    except Exception as error:  # whatever the client raises: what was computed is in the folder
        again = _how_to_push(folder, repo_id, private, revision, push_predictions)
        raise PushError(
            f"{folder} was not pushed to {repo_id} ({reason(error)}): everything is in the folder; check login and network "
            f"and push it again, {again}."
        ) from None


def _name_in_card(folder: Path, repo_id: str) -> None:
    """A card may have been written before the model had this name on the Hub."""
    card = folder / "README.md"
    if card.exists():
        text = card.read_text(encoding="utf-8")
        named = re.sub(r'(pipeline\("[^"]+", model=)"[^"]*"', rf'\g<1>"{repo_id}"', text)
        if named != text:
            card.write_text(named, encoding="utf-8")


def _how_to_push(
    folder: str | Path, repo_id: str, private: bool | None, revision: str | None, push_predictions: bool = False
) -> str:
    flags = {"--hub_private_repo": private, "--hub_revision": revision, "--push_predictions": push_predictions or None}
    command = ["python", "scripts/push.py", str(folder), "--hub_model_id", repo_id]
    for flag, value in flags.items():
        command += [] if value is None else [flag, str(value)]
    given = {"private": private, "revision": revision, "push_predictions": push_predictions or None}
    arguments = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
    call = f"weighloss.push_folder({str(folder)!r}, {repo_id!r}{arguments})"
    return f"with `{shlex.join(command)}`, or in Python with {call}"


def _listed(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else list(values or ())


def _only(values: Any) -> str | None:
    return next(iter(_listed(values)), None)
